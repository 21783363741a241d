/* Newton's method for softmax regression, subset after subset, each on its own points.

       F(theta) = 1/2 |coefficients|^2 + sum_i c_i (logsumexp(m_i) - m_i,y_i),   c_i = C w_i

   A Newton system is solved by conjugate gradients in float32, in coordinates that nearly
   diagonalise every subset's Hessian (`turned`), preconditioned by its exact diagonal and by what
   the system before has told of it (Morales and Nocedal, "Automatic preconditioning by limited
   memory quasi-Newton updating", 2000): a third fewer products. Gradients are float64, so that the
   end point is float64's. What is gathered of a subset lies in a core's
   second cache, and a block of its points in the first, while a product passes over it forwards and
   backwards. F is convex along a line: a step that overshoots, by the slope at its end, is halved.

   A subset that does not get there is left to the caller: `reached` says so. The answer to a subset
   depends on nothing but the subset. */

#include <float.h>
#include <math.h>
#include "room.h"
#include "vectors.h"

enum {
    MOST_STEPS = 60,
    MOST_LINE = 20,
    MOST_PRODUCTS = 400, /* of one system */
    PATIENCE = 3,        /* stalled steps within the tolerance that end at rounding's floor */
    PAIRS = 12,          /* of directions and products kept from system to system */
    VECTORS = 3,         /* of points, in a block */
    BLOCK = VECTORS * FLOATS,
#if BYTES == 64
    TALL = 5, /* classes of a tile: 5 x 3 sums forwards, 5 x 4 backwards */
    ACROSS = 4,
#else
    TALL = 4,
    ACROSS = 2,
#endif
};

#define FINISHED 1e-4  /* gradient norm / tolerance that ends a subset */
#define STALLED 0.5    /* share of its norm that a step may leave before it counts as stalled */
#define OVERSHOT 0.5   /* slope at a step's end / at its beginning, beyond which it is shortened */
#define LOOSE 0.1      /* relative residual of a Newton system: early ... */
#define TIGHT 1e-3     /* ... and late */
#define DAMPING 1e-3   /* of a free intercept, times the gradient norm so that it fades */

typedef struct {
    int64_t points, size, width;  /* size = features + 1; width: widened with zeros */
    int64_t classes;
    double C;
    const double *design;         /* [points, width]: [x, 1] */
    const float *turned;          /* [points, width]: design times turn */
    const double *turn;           /* [width, width]: theta = turn times turned theta */
    const double *back;           /* its transposed */
    const double *penalty;        /* [width] */
    const int32_t *labels;        /* [points] */
    const double *start;          /* [classes, width] */
} Pool;

typedef struct {
    int64_t count, padded, all;              /* points; padded to vectors; classes x width */
    int64_t *place;
    double *factor, *scores; /* C w; [classes, padded] */
    double *theta, *trial, *gradient, *other, *direction; /* [classes, width] */
    float *rows, *columns;                   /* [padded, width] and [width, padded], turned */
    float *chance, *scaled;                  /* [classes, padded]: p and c p */
    float *solution, *remaining, *search, *product, *inverse; /* [classes + TALL, width] */
    float *scaled_rest;                      /* the preconditioned residual */
    float *pairs;                            /* [2 PAIRS, 2, classes x width] */
    float *known[PAIRS], *fresh[PAIRS];      /* of the system before, oldest first, and of this one */
    float curved[PAIRS], new_curved[PAIRS];  /* search' product of each */
    int64_t knows;
    float *along;                            /* [classes, BLOCK] */
    int32_t *label;
    void *memory;
} Room;

static int begin(Room *room, const Pool *pool) {
    size_t most = (pool->points + FLOATS) / FLOATS * FLOATS, classes = pool->classes;
    size_t all = (classes + TALL) * pool->width;
    room->all = pool->classes * pool->width;
    Part parts[] = {
        {&room->place, most * 8},         {&room->factor, most * 8},    {&room->label, most * 4},
        {&room->theta, all * 8},          {&room->trial, all * 8},      {&room->gradient, all * 8},
        {&room->other, all * 8},          {&room->direction, all * 8},  {&room->solution, all * 4},
        {&room->remaining, all * 4},      {&room->search, all * 4},     {&room->product, all * 4},
        {&room->inverse, all * 4},        {&room->scaled_rest, all * 4},
        {&room->scores, classes * most * 8},
        {&room->chance, classes * most * 4},
        {&room->scaled, classes * most * 4},
        {&room->rows, most * pool->width * 4},
        {&room->columns, most * pool->width * 4},
        {&room->along, (classes + TALL) * BLOCK * 4},
        {&room->pairs, 4 * PAIRS * room->all * 4},
    };
    room->memory = room_for(parts, sizeof parts / sizeof *parts);
    if (room->memory == NULL) return 0;
    for (int64_t k = 0; k < PAIRS; k++) {
        room->known[k] = room->pairs + 2 * k * room->all;
        room->fresh[k] = room->pairs + 2 * (PAIRS + k) * room->all;
    }
    return 1;
}

/* ---- gradients in float64 ---------------------------------------------------------------------- */

/* The gradient at `theta` into `to`, its largest absolute entry, and scores and chances there. */
static double evaluate(const Pool *pool, Room *room, const double *theta, double *to) {
    int64_t width = pool->width, classes = pool->classes, padded = room->padded;
    for (int64_t k = 0; k < classes; k++)
        for (int64_t j = 0; j < width; j += DOUBLES)
            vd_store(to + k * width + j, vd_load(pool->penalty + j) * vd_load(theta + k * width + j));
    for (int64_t first = 0; first < padded; first += DOUBLES) {
        const double *row[DOUBLES];
        for (int p = 0; p < DOUBLES; p++) row[p] = pool->design + room->place[first + p] * width;
        vd highest = vd_all(-INFINITY), total = {0}, factor = vd_load(room->factor + first);
        for (int64_t k = 0; k < classes; k++) {
            vd sums[DOUBLES];
            for (int p = 0; p < DOUBLES; p++) sums[p] = (vd){0};
            for (int64_t j = 0; j < width; j += DOUBLES) {
                vd part = vd_load(theta + k * width + j);
                for (int p = 0; p < DOUBLES; p++) sums[p] += vd_load(row[p] + j) * part;
            }
            vd score = vd_sums(sums);
            vd_store(room->scores + k * padded + first, score);
            highest = vd_max(score, highest);
        }
        for (int64_t k = 0; k < classes; k++)
            total += vd_exp(vd_load(room->scores + k * padded + first) - highest);
        vd inverse = 1 / total;
        for (int64_t k = 0; k < classes; k++) {
            vd chance = vd_exp(vd_load(room->scores + k * padded + first) - highest) * inverse;
            double slope[DOUBLES];
            for (int p = 0; p < DOUBLES; p++) {
                room->chance[k * padded + first + p] = (float)chance[p];
                room->scaled[k * padded + first + p] = (float)(chance[p] * factor[p]);
                slope[p] = (chance[p] - (room->label[first + p] == k)) * factor[p];
            }
            for (int64_t j = 0; j < width; j += DOUBLES) {
                vd even = vd_load(to + k * width + j), odd = {0};
                for (int p = 0; p < DOUBLES; p += 2) {
                    even += slope[p] * vd_load(row[p] + j);
                    odd += slope[p + 1] * vd_load(row[p + 1] + j);
                }
                vd_store(to + k * width + j, even + odd);
            }
        }
    }
    double norm = 0;
    for (int64_t j = 0; j < room->all; j++) {
        if (!(fabs(to[j]) <= DBL_MAX)) return INFINITY;
        norm = fabs(to[j]) > norm ? fabs(to[j]) : norm;
    }
    return norm;
}

static double objective_of(const Pool *pool, const Room *room) {
    double sum = 0;
    for (int64_t p = 0; p < room->count; p++) {
        const double *score = room->scores + p;
        double highest = score[0], total = 0;
        for (int64_t k = 1; k < pool->classes; k++)
            highest = score[k * room->padded] > highest ? score[k * room->padded] : highest;
        for (int64_t k = 0; k < pool->classes; k++) total += exp(score[k * room->padded] - highest);
        sum += room->factor[p] * (log(total) + highest - score[room->label[p] * room->padded]);
    }
    for (int64_t k = 0; k < pool->classes; k++)
        for (int64_t j = 0; j < pool->size; j++) {
            double entry = room->theta[k * pool->width + j];
            sum += pool->penalty[j] * entry * entry / 2;
        }
    return sum;
}

/* ---- products with the Hessian in float32 ------------------------------------------------------ */

/* along = rows search' of `tall` classes from `top`. */
INLINE void forwards(const Pool *pool, const Room *room, int64_t first, int64_t top, int tall,
                     int vectors) {
    vf sums[TALL][VECTORS];
    const float *weight = room->search + top * pool->width, *column = room->columns + first;
    for (int u = 0; u < tall; u++)
        for (int v = 0; v < vectors; v++) sums[u][v] = (vf){0};
    for (int64_t j = 0; j < pool->size; j++, column += room->padded) {
        vf part[VECTORS];
        for (int v = 0; v < vectors; v++) part[v] = vf_load(column + v * FLOATS);
        for (int u = 0; u < tall; u++)
            for (int v = 0; v < vectors; v++) sums[u][v] += weight[u * pool->width + j] * part[v];
    }
    for (int u = 0; u < tall; u++)
        for (int v = 0; v < vectors; v++)
            vf_store(room->along + (top + u) * BLOCK + v * FLOATS, sums[u][v]);
}

/* product += along rows of TALL classes from `top`, `across` vectors of columns from `left`. */
INLINE void backwards(const Pool *pool, const Room *room, int64_t first, int64_t points, int64_t top,
                      int64_t left, int across) {
    vf sums[TALL][ACROSS];
    float *product = room->product + top * pool->width + left;
    const float *row = room->rows + first * pool->width + left, *along = room->along + top * BLOCK;
    for (int u = 0; u < TALL; u++)
        for (int a = 0; a < across; a++) sums[u][a] = vf_load(product + u * pool->width + a * FLOATS);
    for (int64_t p = 0; p < points; p++, row += pool->width) {
        vf part[ACROSS];
        for (int a = 0; a < across; a++) part[a] = vf_load(row + a * FLOATS);
        for (int u = 0; u < TALL; u++)
            for (int a = 0; a < across; a++) sums[u][a] += along[u * BLOCK + p] * part[a];
    }
    for (int u = 0; u < TALL; u++)
        for (int a = 0; a < across; a++)
            vf_store(product + u * pool->width + a * FLOATS, sums[u][a]);
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
            mean[v] += vf_load(room->chance + k * room->padded + first + v * FLOATS) *
                       vf_load(room->along + k * BLOCK + v * FLOATS);
    for (int64_t k = 0; k < classes; k++)
        for (int v = 0; v < vectors; v++) {
            float *along = room->along + k * BLOCK + v * FLOATS;
            vf scaled = vf_load(room->scaled + k * room->padded + first + v * FLOATS);
            vf_store(along, scaled * (vf_load(along) - mean[v]));
        }
    int64_t points = room->count - first < vectors * FLOATS ? room->count - first : vectors * FLOATS;
    for (top = 0; top < classes; top += TALL) {
        int64_t left = 0;
        for (; left + ACROSS * FLOATS <= pool->width; left += ACROSS * FLOATS)
            backwards(pool, room, first, points, top, left, ACROSS);
        for (; left < pool->width; left += FLOATS)
            backwards(pool, room, first, points, top, left, 1);
    }
}

/* product = data term's Hessian times search. */
static void multiply(const Pool *pool, const Room *room) {
    int64_t first = 0;
    memset(room->product, 0, room->all * 4);
    for (; first + BLOCK <= room->padded; first += BLOCK) block(pool, room, first, VECTORS);
    if (room->padded - first == 2 * FLOATS) block(pool, room, first, 2);
    if (room->padded - first == FLOATS) block(pool, room, first, 1);
}

/* inverse = 1 / (the Hessian's diagonal). */
static void diagonal(const Pool *pool, const Room *room, double damping) {
    int64_t width = pool->width;
    for (int64_t k = 0; k < pool->classes; k++) {
        float *to = room->inverse + k * width;
        for (int64_t j = 0; j < width; j++) to[j] = (float)pool->penalty[j];
        to[pool->size - 1] = (float)damping;
        for (int64_t p = 0; p < room->count; p++) {
            float chance = room->chance[k * room->padded + p];
            vf curvature = vf_all(room->scaled[k * room->padded + p] * (1 - chance));
            const float *row = room->rows + p * width;
            for (int64_t j = 0; j < width; j += FLOATS) {
                vf part = vf_load(row + j);
                vf_store(to + j, vf_load(to + j) + curvature * part * part);
            }
        }
        for (int64_t j = 0; j < width; j++) to[j] = to[j] > 1e-30f ? 1 / to[j] : 0;
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
    for (int64_t j = 0; j < room->all; j += FLOATS) vf_store(to + j, vf_load(to + j) + times * vf_load(from + j));
}

/* scaled_rest = preconditioned remaining (Nocedal and Wright, algorithm 7.4). */
static void precondition(Room *room) {
    float *rest = room->scaled_rest, share[PAIRS];
    int64_t all = room->all;
    memcpy(rest, room->remaining, all * 4);
    for (int64_t k = room->knows - 1; k >= 0; k--) {
        share[k] = inner(room, room->known[k], rest) / room->curved[k];
        add(room, rest, -share[k], room->known[k] + all);
    }
    for (int64_t j = 0; j < all; j += FLOATS)
        vf_store(rest + j, vf_load(rest + j) * vf_load(room->inverse + j));
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

/* direction = -H^-1 gradient to a relative residual. */
static void direct(const Pool *pool, Room *room, double norm, double residual) {
    int64_t all = room->all, width = pool->width, learned = 0, stride = 1;
    turn(pool, pool->turn, room->gradient, room->direction);
    double length = 1e-300, damping = DAMPING * (norm < 1 ? norm : 1);
    for (int64_t j = 0; j < all; j++)
        length = fabs(room->direction[j]) > length ? fabs(room->direction[j]) : length;
    diagonal(pool, room, damping);
    for (int64_t j = 0; j < all; j++) room->remaining[j] = (float)(-room->direction[j] / length);
    memset(room->solution, 0, all * 4);
    precondition(room);
    memcpy(room->search, room->scaled_rest, all * 4);
    float energy = inner(room, room->remaining, room->search);
    float goal = energy * (float)(residual * residual);
    for (int64_t used = 0; used < MOST_PRODUCTS; used++) {
        multiply(pool, room);
        for (int64_t k = 0; k < pool->classes; k++) {
            float *product = room->product + k * width, *search = room->search + k * width;
            for (int64_t j = 0; j < pool->size - 1; j++) product[j] += (float)pool->penalty[j] * search[j];
            product[pool->size - 1] += (float)damping * search[pool->size - 1];
        }
        float curved = inner(room, room->search, room->product);
        if (!(curved > 1e-30f)) break;
        if (used % stride == 0) {
            if (learned == PAIRS) { /* every other one, so that they come from all of the system */
                for (learned = 0; learned < PAIRS / 2; learned++) {
                    float *swap = room->fresh[learned];
                    room->fresh[learned] = room->fresh[2 * learned];
                    room->fresh[2 * learned] = swap;
                    room->new_curved[learned] = room->new_curved[2 * learned];
                }
                stride *= 2;
            }
            if (used % stride == 0) {
                memcpy(room->fresh[learned], room->search, all * 4);
                memcpy(room->fresh[learned] + all, room->product, all * 4);
                room->new_curved[learned++] = curved;
            }
        }
        float ratio = energy / curved;
        add(room, room->solution, ratio, room->search);
        add(room, room->remaining, -ratio, room->product);
        precondition(room);
        float following = inner(room, room->remaining, room->scaled_rest);
        if (!(following > goal)) break;
        vf share = vf_all(following / energy);
        for (int64_t j = 0; j < all; j += FLOATS)
            vf_store(room->search + j,
                     share * vf_load(room->search + j) + vf_load(room->scaled_rest + j));
        energy = following;
    }
    learn(room, learned);
    for (int64_t j = 0; j < all; j++) room->other[j] = room->solution[j] * length;
    turn(pool, pool->back, room->other, room->direction);
}

/* ---- steps ------------------------------------------------------------------------------------- */

static double dot(const Room *room, const double *first, const double *second) {
    vd sum = {0};
    for (int64_t j = 0; j < room->all; j += DOUBLES) sum += vd_load(first + j) * vd_load(second + j);
    return vd_sum(sum);
}

static void gather(const Pool *pool, Room *room, const double *weights) {
    int64_t width = pool->width;
    room->count = 0;
    for (int64_t i = 0; i < pool->points; i++) {
        room->place[room->count] = i;
        room->factor[room->count] = pool->C * weights[i];
        room->count += weights[i] != 0;
    }
    room->padded = (room->count + FLOATS - 1) / FLOATS * FLOATS;
    for (int64_t p = 0; p < room->padded; p++) {
        if (p >= room->count) room->place[p] = 0, room->factor[p] = 0;
        int64_t i = room->place[p];
        room->label[p] = pool->labels[i];
        memcpy(room->rows + p * width, pool->turned + i * width, width * 4);
        for (int64_t j = 0; j < width; j++)
            room->columns[j * room->padded + p] = pool->turned[i * width + j];
    }
}

/* 1 if the subset got to the tolerance. */
static int train(const Pool *pool, Room *room, const double *weights, const double *start,
                 double tolerance, double *final_norm, int64_t *taken) {
    int64_t width = pool->width;
    gather(pool, room, weights);
    room->knows = 0;
    memcpy(room->theta, pool->start, room->all * 8);
    for (int64_t k = 0; start != NULL && k < pool->classes; k++)
        memcpy(room->theta + k * width, start + k * pool->size, pool->size * 8);
    double goal = FINISHED * tolerance, norm = evaluate(pool, room, room->theta, room->gradient);
    double residual = LOOSE;
    int stalls = 0;
    for (*taken = 0; norm > goal && *taken < MOST_STEPS; ++*taken) {
        int within = norm <= tolerance;
        double finish = 0.3 * goal / norm;
        direct(pool, room, norm, finish > residual ? finish : residual);
        double slope = dot(room, room->gradient, room->direction), length = 1, next;
        if (!(slope < 0)) break;
        for (int attempt = 0;; attempt++) {
            for (int64_t j = 0; j < room->all; j++)
                room->trial[j] = room->theta[j] + length * room->direction[j];
            next = evaluate(pool, room, room->trial, room->other);
            if (within || attempt == MOST_LINE) break;
            if (dot(room, room->other, room->direction) <= -OVERSHOT * slope) break;
            length /= 2;
        }
        memcpy(room->theta, room->trial, room->all * 8);
        memcpy(room->gradient, room->other, room->all * 8);
        double rate = next / norm;
        stalls = within && rate > STALLED ? stalls + 1 : 0;
        residual = rate * rate < TIGHT ? TIGHT : rate * rate > LOOSE ? LOOSE : rate * rate;
        norm = next;
        if (stalls == PATIENCE) break;
    }
    double mean = 0;
    for (int64_t k = 0; k < pool->classes; k++)
        mean += room->theta[k * width + pool->size - 1] / (double)pool->classes;
    for (int64_t k = 0; k < pool->classes; k++) room->theta[k * width + pool->size - 1] -= mean;
    *final_norm = norm;
    return norm <= tolerance;
}

/* The rows of parameters [subsets, classes, size] for weights [subsets, points] from their own
   starts, or from the pool's where `starts` is NULL; which of them got there. -1 without memory. */
int modelpred_softmax(const Pool *pool, int64_t subsets, const double *weights, const double *starts,
                      double tolerance, double *parameters, double *norms, double *objectives,
                      int64_t *steps, uint8_t *reached) {
    Room room;
    int64_t size = pool->classes * pool->size;
    if (!begin(&room, pool)) return -1;
    for (int64_t row = 0; row < subsets; row++) {
        const double *own = starts == NULL ? NULL : starts + row * size;
        reached[row] = (uint8_t)train(pool, &room, weights + row * pool->points, own, tolerance,
                                      norms + row, steps + row);
        for (int64_t k = 0; k < pool->classes; k++)
            memcpy(parameters + row * size + k * pool->size, room.theta + k * pool->width,
                   pool->size * 8);
        objectives[row] = objective_of(pool, &room);
    }
    free(room.memory);
    return 0;
}
