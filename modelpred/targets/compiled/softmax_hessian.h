/* Products with a subset's Hessian in float32, and their preconditioner. */

#ifndef MODELPRED_SOFTMAX_HESSIAN_H
#define MODELPRED_SOFTMAX_HESSIAN_H

#include <math.h>

#include "counted.h"
#include "softmax_room.h"
#include "tiles.h"
#include "vectors.h"

#define LOOSENED 1e-2f       /* added to an intercept's block, relative to its diagonal */
#define SMALLEST_PIVOT 1e-5f /* of a block, relative to its diagonal */

/* along = rows search' of `tall` classes from `top`. */
INLINE void forwards(const Pool *pool, const Room *room, int64_t first, int64_t top, int tall,
                     int vectors) {
    vf sums[TALL][VECTORS];
    for (int u = 0; u < tall; u++)
        for (int v = 0; v < vectors; v++) sums[u][v] = (vf){0};
    add_scores(sums, room->search + top * pool->width, pool->width, room->columns + first, room->wide,
               pool->size, tall, vectors);
    for (int u = 0; u < tall; u++)
        for (int v = 0; v < vectors; v++)
            vf_store(room->along + (top + u) * BLOCK + v * FLOATS, sums[u][v]);
}

INLINE void block(const Pool *pool, const Room *room, int64_t first, int vectors) {
    int64_t top = 0, classes = pool->classes;
    for (; top + TALL <= classes; top += TALL) forwards(pool, room, first, top, TALL, vectors);
    for (; top + 2 <= classes; top += 2) forwards(pool, room, first, top, 2, vectors);
    for (; top < classes; top++) forwards(pool, room, first, top, 1, vectors);
    vf mean[VECTORS];
    for (int v = 0; v < vectors; v++) mean[v] = (vf){0};
    for (int64_t k = 0; k < classes; k++)
        for (int v = 0; v < vectors; v++)
            mean[v] += vf_load(room->near + k * room->wide + first + v * FLOATS) *
                       vf_load(room->along + k * BLOCK + v * FLOATS);
    for (int64_t k = 0; k < classes; k++)
        for (int v = 0; v < vectors; v++) {
            float *along = room->along + k * BLOCK + v * FLOATS;
            vf scaled = vf_load(room->weighted + k * room->wide + first + v * FLOATS);
            vf_store(along, scaled * (vf_load(along) - mean[v]));
        }
    int64_t points = room->bent - first < vectors * FLOATS ? room->bent - first : vectors * FLOATS;
    for (top = 0; top < classes; top += TALL)
        add_products(room->product + top * pool->width, room->along + top * BLOCK,
                     room->rows + first * pool->width, pool->width, points, TALL);
}

/* product = data term's Hessian times search. */
static void multiply(const Pool *pool, const Room *room) {
    int64_t first = 0;
    count_floats(4.0 * room->bent * pool->size * pool->classes);
    memset(room->product, 0, room->all * 4);
    for (; first + BLOCK <= room->wide; first += BLOCK) block(pool, room, first, VECTORS);
    if (room->wide - first == 2 * FLOATS) block(pool, room, first, 2);
    if (room->wide - first == FLOATS) block(pool, room, first, 1);
}

/* Where the block of classes k >= l begins. */
INLINE int64_t pair(int64_t k, int64_t l) { return k * (k + 1) / 2 + l; }

/* coupled = of each direction, how it bends each class with each: sum_i c p_k (1_kl - p_l) x_i^2. */
static void couple(const Pool *pool, const Room *room) {
    int64_t width = pool->width, pairs = pair(pool->classes, 0), wide = room->wide;
    memset(room->coupled, 0, pairs * width * 4);
    for (int64_t first = 0; first < room->bent; first += BLOCK) {
        int64_t points = room->bent - first < BLOCK ? room->bent - first : BLOCK;
        for (int64_t p = 0; p < points; p++)
            for (int64_t j = 0; j < width; j += FLOATS) {
                vf part = vf_load(room->rows + (first + p) * width + j);
                vf_store(room->squares + p * width + j, part * part);
            }
        int64_t lanes = (points + FLOATS - 1) / FLOATS * FLOATS;
        for (int64_t k = 0; k < pool->classes; k++)
            for (int64_t l = 0; l <= k; l++)
                for (int64_t p = 0; p < lanes; p += FLOATS) {
                    vf scaled = vf_load(room->weighted + k * wide + first + p);
                    vf near = vf_load(room->near + l * wide + first + p);
                    vf_store(room->shares + pair(k, l) * BLOCK + p, scaled * ((k == l ? 1.0f : 0.0f) - near));
                }
        for (int64_t top = 0; top < pairs; top += TALL)
            add_products(room->coupled + top * width, room->shares + top * BLOCK, room->squares, width,
                         points, TALL);
    }
}

/* The factor of each direction's block, its diagonal inverted; the lanes are directions. */
static void factorise(const Pool *pool, Room *room, double damping) {
    int64_t width = pool->width, classes = pool->classes;
    count_floats(2.0 * room->bent * pool->size * pair(classes, 0));
    couple(pool, room);
    for (int64_t j = 0; j < width; j++)
        for (int64_t k = 0; k < classes; k++) {
            float *at = room->coupled + pair(k, k) * width + j;
            if (j < pool->size - 1) *at += (float)pool->penalty[j];
            /* Equal shifts of all intercepts bend nothing: float32 must not divide by that. */
            else *at = j < pool->size ? (float)damping + *at * (1 + LOOSENED) : 1;
            *at += 1e-30f;
        }
    for (int64_t j = 0; j < width; j += FLOATS) {
        float *block = room->coupled + j;
        for (int64_t k = 0; k < classes; k++) {
            vf diagonal = vf_load(block + pair(k, k) * width), pivot = diagonal;
            for (int64_t l = 0; l < k; l++) {
                vf entry = vf_load(block + pair(k, l) * width);
                for (int64_t i = 0; i < l; i++)
                    entry -= vf_load(block + pair(k, i) * width) * vf_load(block + pair(l, i) * width);
                entry *= vf_load(block + pair(l, l) * width);
                vf_store(block + pair(k, l) * width, entry);
                pivot -= entry * entry;
            }
            pivot = vf_max(pivot, SMALLEST_PIVOT * diagonal);
            for (int lane = 0; lane < FLOATS; lane++) pivot[lane] = 1 / sqrtf(pivot[lane]);
            vf_store(block + pair(k, k) * width, pivot);
        }
    }
}

/* rest = (the blocks)^-1 rest. */
static void solve_blocks(const Pool *pool, const Room *room, float *rest) {
    int64_t width = pool->width, classes = pool->classes;
    for (int64_t j = 0; j < width; j += FLOATS) {
        const float *block = room->coupled + j;
        for (int64_t k = 0; k < classes; k++) {
            vf found = vf_load(rest + k * width + j);
            for (int64_t l = 0; l < k; l++)
                found -= vf_load(block + pair(k, l) * width) * vf_load(rest + l * width + j);
            vf_store(rest + k * width + j, found * vf_load(block + pair(k, k) * width));
        }
        for (int64_t k = classes - 1; k >= 0; k--) {
            vf found = vf_load(rest + k * width + j) * vf_load(block + pair(k, k) * width);
            vf_store(rest + k * width + j, found);
            for (int64_t l = 0; l < k; l++)
                vf_store(rest + l * width + j, vf_load(rest + l * width + j) -
                                                   found * vf_load(block + pair(k, l) * width));
        }
    }
}

/* to_k = sum_i from_k,i by_i for `tall` classes from `top`. */
INLINE void turn_classes(const Pool *pool, const double *by, const double *from, double *to,
                         int64_t top, int tall) {
    int64_t width = pool->width;
    for (int64_t j = 0; j < width; j += 2 * DOUBLES) {
        vd sums[TALL][2];
        for (int u = 0; u < tall; u++) sums[u][0] = sums[u][1] = (vd){0};
        for (int64_t i = 0; i < pool->size; i++) {
            vd left = vd_load(by + i * width + j), right = vd_load(by + i * width + j + DOUBLES);
            for (int u = 0; u < tall; u++) {
                sums[u][0] += from[(top + u) * width + i] * left;
                sums[u][1] += from[(top + u) * width + i] * right;
            }
        }
        for (int u = 0; u < tall; u++) {
            vd_store(to + (top + u) * width + j, sums[u][0]);
            vd_store(to + (top + u) * width + j + DOUBLES, sums[u][1]);
        }
    }
}

/* to = from by, for each class. */
static void turn(const Pool *pool, const double *by, const double *from, double *to) {
    int64_t top = 0;
    count_doubles(2.0 * pool->size * pool->size * pool->classes);
    for (; top + TALL <= pool->classes; top += TALL) turn_classes(pool, by, from, to, top, TALL);
    for (; top < pool->classes; top++) turn_classes(pool, by, from, to, top, 1);
}

static float inner(const Room *room, const float *first, const float *second) {
    /* Four sums, so that none waits for itself. */
    vf sums[4] = {{0}, {0}, {0}, {0}};
    int64_t j = 0;
    for (; j + 4 * FLOATS <= room->all; j += 4 * FLOATS)
        for (int k = 0; k < 4; k++)
            sums[k] += vf_load(first + j + k * FLOATS) * vf_load(second + j + k * FLOATS);
    for (; j < room->all; j += FLOATS) sums[0] += vf_load(first + j) * vf_load(second + j);
    vf sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float total = 0;
    for (int lane = 0; lane < FLOATS; lane++) total += sum[lane];
    return total;
}

INLINE void add(const Room *room, float *to, float factor, const float *from) {
    vf times = vf_all(factor);
    for (int64_t j = 0; j < room->all; j += FLOATS)
        vf_store(to + j, vf_load(to + j) + times * vf_load(from + j));
}

/* scaled_rest = preconditioned remaining (Nocedal and Wright, algorithm 7.4). */
static void precondition(const Pool *pool, Room *room) {
    float *rest = room->scaled_rest, share[PAIRS];
    int64_t all = room->all;
    count_floats(8.0 * room->knows * all);
    memcpy(rest, room->remaining, all * 4);
    for (int64_t k = room->knows - 1; k >= 0; k--) {
        share[k] = inner(room, room->known[k], rest) / room->curved[k];
        add(room, rest, -share[k], room->known[k] + all);
    }
    solve_blocks(pool, room, rest);
    for (int64_t k = 0; k < room->knows; k++) {
        float other = inner(room, room->known[k] + all, rest) / room->curved[k];
        add(room, rest, share[k] - other, room->known[k]);
    }
}

/* The pairs of this system, and of the system before as far as there is room. */
static void learn(Room *room, int64_t learned) {
    int64_t kept = PAIRS - learned < room->knows ? PAIRS - learned : room->knows;
    float *order[PAIRS], *spare[PAIRS], curved[PAIRS];
    int64_t spares = 0;
    for (int64_t k = 0; k < PAIRS; k++) {
        int64_t age = k - (room->knows - kept);
        if (k < room->knows && age >= 0) order[age] = room->known[k], curved[age] = room->curved[k];
        else spare[spares++] = room->known[k];
    }
    for (int64_t k = 0; k < learned; k++) {
        order[kept + k] = room->fresh[k];
        curved[kept + k] = room->new_curved[k];
        room->fresh[k] = spare[--spares];
    }
    room->knows = kept + learned;
    while (spares > 0) order[kept + learned++] = spare[--spares];
    memcpy(room->known, order, sizeof order);
    memcpy(room->curved, curved, sizeof curved);
}

#endif
