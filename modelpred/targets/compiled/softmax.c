/* Newton's method for softmax regression, subset after subset, each on its own points.

       F(theta) = 1/2 |coefficients|^2 + sum_i c_i (logsumexp(m_i) - m_i,y_i),   c_i = C w_i

   A Newton system is solved by conjugate gradients in float32; gradients are float64, so that the end
   point is float64's. What makes it cheap:

   - Coordinates that nearly diagonalise every subset's Hessian (`turned`). In each direction alone the
     classes bend each other, and most where two are confused: a block of classes x classes for each
     direction is the preconditioner, half of the products that the diagonal needs.
   - What the system before has told of the Hessian improves it further (Morales and Nocedal,
     "Automatic preconditioning by limited memory quasi-Newton updating", 2000).
   - Points that the model is sure of bend next to nothing: a system leaves out those that together
     hold less of the curvature than its residual asks for.
   - What is gathered of a subset lies in a core's second cache, and a block of its points in the
     first, while a product passes over it forwards and backwards.

   F is convex along a line: a step that overshoots, by the slope at its end, is halved.

   A subset that does not get there is left to the caller: `reached` says so. The answer to a subset
   depends on nothing but the subset. */

#include <float.h>
#include <math.h>

#include "counted.h"
#include "room.h"
#include "vectors.h"

enum {
    MOST_STEPS = 60,
    MOST_LINE = 20,
    MOST_PRODUCTS = 400, /* of one system */
    PATIENCE = 3,        /* stalled steps within the tolerance that end at rounding's floor */
    PAIRS = 6,           /* of directions and products kept from system to system */
    VECTORS = 3,         /* of points, in a block */
    BLOCK = VECTORS * FLOATS,
    GRADED = 32,         /* points of a gradient at once; so many that they lie in the first cache */
#if BYTES == 64
    TALL = 5, /* classes of a tile: 5 x 3 sums forwards, 5 x 4 backwards */
    ACROSS = 4,
    AT_ONCE = 3, /* classes whose scores in float64 are summed at once, 3 x 8 */
#else
    TALL = 4,
    ACROSS = 2,
    AT_ONCE = 2,
#endif
};

#define FINISHED 1e-4  /* gradient norm / tolerance that ends a subset */
#define STALLED 0.5    /* share of its norm that a step may leave before it counts as stalled */
#define OVERSHOT 0.5   /* slope at a step's end / at its beginning, beyond which it is shortened */
#define LOOSE 0.1      /* relative residual of a Newton system: early ... */
#define TIGHT 1e-3     /* ... and late */
#define FLAT 0.03      /* share of all curvature that a system may leave out / its residual */
#define LOOSENED 1e-2f /* added to an intercept's block, relative to its diagonal */
#define SMALLEST_PIVOT 1e-5f /* of a block, relative to its diagonal */
#define SETTLED 0.1    /* gradient norm after a step / before, below which its factor serves again */
#define DAMPING 1e-3   /* of a free intercept, times the gradient norm so that it fades */

typedef struct {
    int64_t points, size, width;  /* size = features + 1; width: widened with zeros */
    int64_t classes;
    double C;
    const double *design;         /* [points, width]: [x, 1] */
    const float *turned;          /* [points, width]: design times turn */
    const float *columns;         /* [width, points]: its transposed */
    const double *turn;           /* [width, width]: theta = turn times turned theta */
    const double *back;           /* its transposed */
    const double *penalty;        /* [width] */
    const double *labels;         /* [points] */
    const double *start;          /* [classes, width] */
} Pool;

typedef struct {
    int64_t count, padded, all;              /* points; padded to vectors; classes x width */
    int64_t bent, wide;                      /* points that bend the objective; padded */
    int64_t *place, *bends;                  /* in the pool: all, and those that bend */
    double *factor, *scores;                 /* C w; [classes, padded] */
    double *theta, *trial, *gradient, *other, *direction; /* [classes, width] */
    float *rows, *columns;                   /* [wide, width] and [width, wide], turned */
    float *chance, *scaled;                  /* [classes, padded]: p and c p */
    float *curvature;                        /* [padded]: c sum_k p_k (1 - p_k) */
    float *near, *weighted;                  /* [classes, wide]: p and c p of those that bend */
    float *solution, *remaining, *search, *product; /* [classes + TALL, width] */
    float *coupled;                          /* [pairs of classes + TALL, width] */
    float *squares, *shares;                 /* [BLOCK, width] and [pairs + TALL, BLOCK] */
    float *scaled_rest;                      /* the preconditioned residual */
    float *pairs;                            /* [2 PAIRS, 2, classes x width] */
    float *known[PAIRS], *fresh[PAIRS];      /* of the system before, oldest first, and of this one */
    float curved[PAIRS], new_curved[PAIRS];  /* search' product of each */
    int64_t knows;
    float *along;                            /* [classes, BLOCK] */
    double *label, *slopes;                  /* [padded], and [classes, GRADED] */
    void *memory;
} Room;

static int begin(Room *room, const Pool *pool) {
    size_t most = (pool->points + FLOATS) / FLOATS * FLOATS, classes = pool->classes;
    size_t all = (classes + TALL) * pool->width;
    room->all = pool->classes * pool->width;
    Part parts[] = {
        {&room->place, most * 8},         {&room->factor, most * 8},    {&room->label, most * 8},
        {&room->slopes, classes * GRADED * 8},
        {&room->bends, most * 8},         {&room->curvature, most * 4},
        {&room->theta, all * 8},          {&room->trial, all * 8},      {&room->gradient, all * 8},
        {&room->other, all * 8},          {&room->direction, all * 8},  {&room->solution, all * 4},
        {&room->remaining, all * 4},      {&room->search, all * 4},     {&room->product, all * 4},
        {&room->scaled_rest, all * 4},
        {&room->coupled, (classes * (classes + 1) / 2 + TALL) * pool->width * 4},
        {&room->squares, BLOCK * pool->width * 4},
        {&room->shares, (classes * (classes + 1) / 2 + TALL) * BLOCK * 4},
        {&room->scores, classes * most * 8},
        {&room->chance, classes * most * 4},
        {&room->scaled, classes * most * 4},
        {&room->near, classes * most * 4},
        {&room->weighted, classes * most * 4},
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

/* Scores of DOUBLES points for `tall` classes from `top`. */
INLINE void score(const Pool *pool, const Room *room, const double *theta, int64_t first, int64_t top,
                  int tall) {
    const double *row[DOUBLES];
    vd sums[AT_ONCE][DOUBLES];
    for (int p = 0; p < DOUBLES; p++) row[p] = pool->design + room->place[first + p] * pool->width;
    for (int u = 0; u < tall; u++)
        for (int p = 0; p < DOUBLES; p++) sums[u][p] = (vd){0};
    for (int64_t j = 0; j < pool->width; j += DOUBLES) {
        vd part[AT_ONCE];
        for (int u = 0; u < tall; u++) part[u] = vd_load(theta + (top + u) * pool->width + j);
        for (int p = 0; p < DOUBLES; p++) {
            vd own = vd_load(row[p] + j);
            for (int u = 0; u < tall; u++) sums[u][p] += own * part[u];
        }
    }
    for (int u = 0; u < tall; u++)
        vd_store(room->scores + (top + u) * room->padded + first, vd_sums(sums[u]));
}

/* Chances, slopes and curvatures of DOUBLES points from their scores. */
INLINE void chances(const Pool *pool, const Room *room, int64_t first, double *slope) {
    int64_t classes = pool->classes, padded = room->padded;
    vd highest = vd_all(-INFINITY), total = {0}, square = {0};
    vd factor = vd_load(room->factor + first), label = vd_load(room->label + first);
    for (int64_t k = 0; k < classes; k++)
        highest = vd_max(vd_load(room->scores + k * padded + first), highest);
    for (int64_t k = 0; k < classes; k++) {
        vd chance = vd_exp(vd_load(room->scores + k * padded + first) - highest);
        vd_store(slope + k * GRADED, chance);
        total += chance;
    }
    vd inverse = 1 / total;
    for (int64_t k = 0; k < classes; k++) {
        vd chance = vd_load(slope + k * GRADED) * inverse, own = vd_all((double)k);
        square += chance * chance;
        vd_narrow(room->chance + k * padded + first, chance);
        vd_narrow(room->scaled + k * padded + first, chance * factor);
        vd_store(slope + k * GRADED, (chance - vd_where(label == own, vd_all(1), (vd){0})) * factor);
    }
    vd_narrow(room->curvature + first, factor * (1 - square));
}

/* to += slopes rows of `tall` classes from `top`, two vectors of columns from `left`. */
INLINE void add_rows(const Pool *pool, const Room *room, int64_t first, int64_t points, double *to,
                     int64_t top, int64_t left, int tall) {
    int64_t width = pool->width;
    vd sums[TALL][2];
    for (int u = 0; u < tall; u++)
        for (int a = 0; a < 2; a++) sums[u][a] = vd_load(to + (top + u) * width + left + a * DOUBLES);
    for (int64_t p = 0; p < points; p++) {
        const double *row = pool->design + room->place[first + p] * width + left;
        const double *slope = room->slopes + top * GRADED + p;
        vd near = vd_load(row), far = vd_load(row + DOUBLES);
        for (int u = 0; u < tall; u++) {
            sums[u][0] += slope[u * GRADED] * near;
            sums[u][1] += slope[u * GRADED] * far;
        }
    }
    for (int u = 0; u < tall; u++)
        for (int a = 0; a < 2; a++) vd_store(to + (top + u) * width + left + a * DOUBLES, sums[u][a]);
}

/* The gradient at `theta` into `to`, its largest absolute entry, and scores and chances there. */
static double evaluate(const Pool *pool, Room *room, const double *theta, double *to) {
    int64_t width = pool->width, classes = pool->classes;
    count_doubles(4.0 * room->count * pool->size * classes);
    for (int64_t k = 0; k < classes; k++)
        for (int64_t j = 0; j < width; j += DOUBLES)
            vd_store(to + k * width + j, vd_load(pool->penalty + j) * vd_load(theta + k * width + j));
    for (int64_t first = 0; first < room->padded; first += GRADED) {
        int64_t points = room->padded - first < GRADED ? room->padded - first : GRADED, top = 0;
        for (int64_t p = 0; p < points; p += DOUBLES) {
            for (top = 0; top + AT_ONCE <= classes; top += AT_ONCE)
                score(pool, room, theta, first + p, top, AT_ONCE);
            for (; top < classes; top++) score(pool, room, theta, first + p, top, 1);
            chances(pool, room, first + p, room->slopes + p);
        }
        for (int64_t left = 0; left < width; left += 2 * DOUBLES) {
            for (top = 0; top + TALL <= classes; top += TALL)
                add_rows(pool, room, first, points, to, top, left, TALL);
            for (; top < classes; top++) add_rows(pool, room, first, points, to, top, left, 1);
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
        sum += room->factor[p] * (log(total) + highest - score[(int64_t)room->label[p] * room->padded]);
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
    for (int64_t j = 0; j < pool->size; j++, column += room->wide) {
        vf part[VECTORS];
        for (int v = 0; v < vectors; v++) part[v] = vf_load(column + v * FLOATS);
        for (int u = 0; u < tall; u++)
            for (int v = 0; v < vectors; v++) sums[u][v] += weight[u * pool->width + j] * part[v];
    }
    for (int u = 0; u < tall; u++)
        for (int v = 0; v < vectors; v++)
            vf_store(room->along + (top + u) * BLOCK + v * FLOATS, sums[u][v]);
}

/* to += weights rows for TALL rows of weights [_, BLOCK], `across` vectors of columns from `left`. */
INLINE void gathered_sums(int64_t width, const float *weights, const float *rows, int64_t points,
                          float *to, int64_t left, int across) {
    vf sums[TALL][ACROSS];
    for (int u = 0; u < TALL; u++)
        for (int a = 0; a < across; a++) sums[u][a] = vf_load(to + u * width + left + a * FLOATS);
    for (int64_t p = 0; p < points; p++, rows += width) {
        vf part[ACROSS];
        for (int a = 0; a < across; a++) part[a] = vf_load(rows + left + a * FLOATS);
        for (int u = 0; u < TALL; u++)
            for (int a = 0; a < across; a++) sums[u][a] += weights[u * BLOCK + p] * part[a];
    }
    for (int u = 0; u < TALL; u++)
        for (int a = 0; a < across; a++) vf_store(to + u * width + left + a * FLOATS, sums[u][a]);
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
    for (top = 0; top < classes; top += TALL) {
        int64_t left = 0, width = pool->width;
        const float *along = room->along + top * BLOCK, *rows = room->rows + first * width;
        float *to = room->product + top * width;
        for (; left + ACROSS * FLOATS <= width; left += ACROSS * FLOATS)
            gathered_sums(width, along, rows, points, to, left, ACROSS);
        for (; left < width; left += FLOATS)
            gathered_sums(width, along, rows, points, to, left, 1);
    }
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

/* ---- the preconditioner ------------------------------------------------------------------------ */

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
        for (int64_t top = 0; top < pairs; top += TALL) {
            int64_t left = 0;
            const float *share = room->shares + top * BLOCK;
            float *to = room->coupled + top * width;
            for (; left + ACROSS * FLOATS <= width; left += ACROSS * FLOATS)
                gathered_sums(width, share, room->squares, points, to, left, ACROSS);
            for (; left < width; left += FLOATS)
                gathered_sums(width, share, room->squares, points, to, left, 1);
        }
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

/* Gathers the points that bend the objective, without those that together make up less than a share
   of all curvature. */
static void gather_bent(const Pool *pool, Room *room, double share) {
    int64_t width = pool->width, padded = room->padded;
    /* Sums by powers of two are as good as an order of the points. */
    double sums[256] = {0}, all = 0, left;
    for (int64_t p = 0; p < room->count; p++) {
        uint32_t bits;
        memcpy(&bits, room->curvature + p, 4);
        sums[bits >> 23 & 255] += room->curvature[p];
        all += room->curvature[p];
    }
    uint32_t least = 0;
    for (left = share * all; least < 255 && sums[least] <= left; least++) left -= sums[least];
    room->bent = 0;
    for (int64_t p = 0; p < room->count; p++) {
        uint32_t bits;
        memcpy(&bits, room->curvature + p, 4);
        room->bends[room->bent] = p;
        room->bent += (bits >> 23 & 255) >= least;
    }
    room->wide = (room->bent + FLOATS - 1) / FLOATS * FLOATS;
    for (int64_t q = 0; q < room->wide; q++) {
        int there = q < room->bent;
        int64_t p = there ? room->bends[q] : 0, i = room->place[p];
        memcpy(room->rows + q * width, pool->turned + i * width, width * 4);
        room->bends[q] = i;
        for (int64_t k = 0; k < pool->classes; k++) {
            room->near[k * room->wide + q] = room->chance[k * padded + p];
            room->weighted[k * room->wide + q] = there ? room->scaled[k * padded + p] : 0;
        }
    }
    for (int64_t j = 0; j < pool->size; j++) {
        const float *from = pool->columns + j * pool->points;
        float *to = room->columns + j * room->wide;
        for (int64_t q = 0; q < room->wide; q++) to[q] = from[room->bends[q]];
    }
}

/* direction = -H^-1 gradient to a relative residual. */
static void direct(const Pool *pool, Room *room, double norm, double residual, int anew) {
    int64_t all = room->all, width = pool->width, learned = 0, stride = 1;
    turn(pool, pool->turn, room->gradient, room->direction);
    double length = 1e-300, damping = DAMPING * (norm < 1 ? norm : 1);
    for (int64_t j = 0; j < all; j++)
        length = fabs(room->direction[j]) > length ? fabs(room->direction[j]) : length;
    gather_bent(pool, room, FLAT * residual);
    if (anew) factorise(pool, room, damping);
    for (int64_t j = 0; j < all; j++) room->remaining[j] = (float)(-room->direction[j] / length);
    memset(room->solution, 0, all * 4);
    precondition(pool, room);
    memcpy(room->search, room->scaled_rest, all * 4);
    float energy = inner(room, room->remaining, room->search);
    float goal = energy * (float)(residual * residual);
    for (int64_t used = 0; used < MOST_PRODUCTS; used++) {
        multiply(pool, room);
        for (int64_t k = 0; k < pool->classes; k++) {
            float *product = room->product + k * width, *search = room->search + k * width;
            for (int64_t j = 0; j < pool->size - 1; j++)
                product[j] += (float)pool->penalty[j] * search[j];
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
        precondition(pool, room);
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
    double residual = LOOSE, rate = 1;
    int stalls = 0;
    for (*taken = 0; norm > goal && *taken < MOST_STEPS; ++*taken) {
        int within = norm <= tolerance;
        double finish = 0.3 * goal / norm;
        direct(pool, room, norm, finish > residual ? finish : residual, rate > SETTLED);
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
        rate = next / norm;
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
