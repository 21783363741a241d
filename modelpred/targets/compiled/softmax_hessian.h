/* Products with a subset's Hessian in float32, and their preconditioner. */

#ifndef MODELPRED_SOFTMAX_HESSIAN_H
#define MODELPRED_SOFTMAX_HESSIAN_H

#include <math.h>

#include "counted.h"
#include "softmax_workspace.h"
#include "tiles.h"
#include "vectors.h"

#define LOOSENED 1e-2f       /* added to an intercept's block, relative to its diagonal */
#define SMALLEST_PIVOT 1e-5f /* of a block, relative to its diagonal */

/* along = rows search' of `tall` classes from `top`. */
INLINE void forwards(const Pool *pool, const Workspace *workspace, int64_t first, int64_t top, int tall,
                     int vectors) {
    vf sums[TALL][VECTORS];
    for (int u = 0; u < tall; u++)
        for (int v = 0; v < vectors; v++) sums[u][v] = (vf){0};
    add_scores(sums, workspace->search + top * pool->width, pool->width, workspace->columns + first, workspace->wide,
               pool->size, tall, vectors);
    for (int u = 0; u < tall; u++)
        for (int v = 0; v < vectors; v++)
            vf_store(workspace->along + (top + u) * BLOCK + v * FLOATS, sums[u][v]);
}

INLINE void block(const Pool *pool, const Workspace *workspace, int64_t first, int vectors) {
    int64_t top = 0, classes = pool->classes;
    for (; top + TALL <= classes; top += TALL) forwards(pool, workspace, first, top, TALL, vectors);
    for (; top + 2 <= classes; top += 2) forwards(pool, workspace, first, top, 2, vectors);
    for (; top < classes; top++) forwards(pool, workspace, first, top, 1, vectors);
    vf mean[VECTORS];
    for (int v = 0; v < vectors; v++) mean[v] = (vf){0};
    for (int64_t k = 0; k < classes; k++)
        for (int v = 0; v < vectors; v++)
            mean[v] += vf_load(workspace->near + k * workspace->wide + first + v * FLOATS) *
                       vf_load(workspace->along + k * BLOCK + v * FLOATS);
    for (int64_t k = 0; k < classes; k++)
        for (int v = 0; v < vectors; v++) {
            float *along = workspace->along + k * BLOCK + v * FLOATS;
            vf scaled = vf_load(workspace->weighted + k * workspace->wide + first + v * FLOATS);
            vf_store(along, scaled * (vf_load(along) - mean[v]));
        }
    int64_t points = workspace->bent - first < vectors * FLOATS ? workspace->bent - first : vectors * FLOATS;
    for (top = 0; top < classes; top += TALL)
        add_products(workspace->product + top * pool->width, workspace->along + top * BLOCK,
                     workspace->rows + first * pool->width, pool->width, points, TALL);
}

/* product = data term's Hessian times search. */
static void multiply(const Pool *pool, const Workspace *workspace) {
    int64_t first = 0;
    count_floats(4.0 * workspace->bent * pool->size * pool->classes);
    memset(workspace->product, 0, workspace->all * 4);
    for (; first + BLOCK <= workspace->wide; first += BLOCK) block(pool, workspace, first, VECTORS);
    if (workspace->wide - first == 2 * FLOATS) block(pool, workspace, first, 2);
    if (workspace->wide - first == FLOATS) block(pool, workspace, first, 1);
}

/* Where the block of classes k >= l begins. */
INLINE int64_t pair(int64_t k, int64_t l) { return k * (k + 1) / 2 + l; }

/* coupled = of each direction, how it bends each class with each: sum_i c p_k (1_kl - p_l) x_i^2. */
static void couple(const Pool *pool, const Workspace *workspace) {
    int64_t width = pool->width, pairs = pair(pool->classes, 0), wide = workspace->wide;
    memset(workspace->coupled, 0, pairs * width * 4);
    for (int64_t first = 0; first < workspace->bent; first += BLOCK) {
        int64_t points = workspace->bent - first < BLOCK ? workspace->bent - first : BLOCK;
        for (int64_t p = 0; p < points; p++)
            for (int64_t j = 0; j < width; j += FLOATS) {
                vf part = vf_load(workspace->rows + (first + p) * width + j);
                vf_store(workspace->squares + p * width + j, part * part);
            }
        int64_t lanes = (points + FLOATS - 1) / FLOATS * FLOATS;
        for (int64_t k = 0; k < pool->classes; k++)
            for (int64_t l = 0; l <= k; l++)
                for (int64_t p = 0; p < lanes; p += FLOATS) {
                    vf scaled = vf_load(workspace->weighted + k * wide + first + p);
                    vf near = vf_load(workspace->near + l * wide + first + p);
                    vf_store(workspace->shares + pair(k, l) * BLOCK + p, scaled * ((k == l ? 1.0f : 0.0f) - near));
                }
        for (int64_t top = 0; top < pairs; top += TALL)
            add_products(workspace->coupled + top * width, workspace->shares + top * BLOCK, workspace->squares, width,
                         points, TALL);
    }
}

/* The factor of each direction's block, its diagonal inverted; the lanes are directions. */
static void factorise(const Pool *pool, Workspace *workspace, double damping) {
    int64_t width = pool->width, classes = pool->classes;
    count_floats(2.0 * workspace->bent * pool->size * pair(classes, 0));
    couple(pool, workspace);
    for (int64_t j = 0; j < width; j++)
        for (int64_t k = 0; k < classes; k++) {
            float *at = workspace->coupled + pair(k, k) * width + j;
            if (j < pool->size - 1) *at += (float)pool->penalty[j];
            /* Equal shifts of all intercepts bend nothing: float32 must not divide by that. */
            else *at = j < pool->size ? (float)damping + *at * (1 + LOOSENED) : 1;
            *at += 1e-30f;
        }
    for (int64_t j = 0; j < width; j += FLOATS) {
        float *block = workspace->coupled + j;
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
static void solve_blocks(const Pool *pool, const Workspace *workspace, float *rest) {
    int64_t width = pool->width, classes = pool->classes;
    for (int64_t j = 0; j < width; j += FLOATS) {
        const float *block = workspace->coupled + j;
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

static float inner(const Workspace *workspace, const float *first, const float *second) {
    /* Four sums, so that none waits for itself. */
    vf sums[4] = {{0}, {0}, {0}, {0}};
    int64_t j = 0;
    for (; j + 4 * FLOATS <= workspace->all; j += 4 * FLOATS)
        for (int k = 0; k < 4; k++)
            sums[k] += vf_load(first + j + k * FLOATS) * vf_load(second + j + k * FLOATS);
    for (; j < workspace->all; j += FLOATS) sums[0] += vf_load(first + j) * vf_load(second + j);
    vf sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float total = 0;
    for (int lane = 0; lane < FLOATS; lane++) total += sum[lane];
    return total;
}

INLINE void add(const Workspace *workspace, float *to, float factor, const float *from) {
    vf times = vf_all(factor);
    for (int64_t j = 0; j < workspace->all; j += FLOATS)
        vf_store(to + j, vf_load(to + j) + times * vf_load(from + j));
}

/* scaled_rest = preconditioned remaining (Nocedal and Wright, algorithm 7.4). */
static void precondition(const Pool *pool, Workspace *workspace) {
    float *rest = workspace->scaled_rest, share[PAIRS];
    int64_t all = workspace->all;
    count_floats(8.0 * workspace->knows * all);
    memcpy(rest, workspace->remaining, all * 4);
    for (int64_t k = workspace->knows - 1; k >= 0; k--) {
        share[k] = inner(workspace, workspace->known[k], rest) / workspace->curved[k];
        add(workspace, rest, -share[k], workspace->known[k] + all);
    }
    solve_blocks(pool, workspace, rest);
    for (int64_t k = 0; k < workspace->knows; k++) {
        float other = inner(workspace, workspace->known[k] + all, rest) / workspace->curved[k];
        add(workspace, rest, share[k] - other, workspace->known[k]);
    }
}

/* The pairs of this system, and of the system before as far as there is workspace. */
static void learn(Workspace *workspace, int64_t learned) {
    int64_t kept = PAIRS - learned < workspace->knows ? PAIRS - learned : workspace->knows;
    float *order[PAIRS], *spare[PAIRS], curved[PAIRS];
    int64_t spares = 0;
    for (int64_t k = 0; k < PAIRS; k++) {
        int64_t age = k - (workspace->knows - kept);
        if (k < workspace->knows && age >= 0) order[age] = workspace->known[k], curved[age] = workspace->curved[k];
        else spare[spares++] = workspace->known[k];
    }
    for (int64_t k = 0; k < learned; k++) {
        order[kept + k] = workspace->fresh[k];
        curved[kept + k] = workspace->new_curved[k];
        workspace->fresh[k] = spare[--spares];
    }
    workspace->knows = kept + learned;
    while (spares > 0) order[kept + learned++] = spare[--spares];
    memcpy(workspace->known, order, sizeof order);
    memcpy(workspace->curved, curved, sizeof curved);
}

#endif
