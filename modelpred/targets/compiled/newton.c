/* Newton's method for one linear model with one score a point, subset after subset.

       F(theta) = 1/2 sum_j penalty_j theta_j^2 + sum_i c_i loss(a_i' theta, y_i),   c_i = C w_i

   One subset's points, a few hundred rows, lie in a core's second cache and its Hessian in the
   first, so that a step costs what its arithmetic costs. Gradients are float64; the Hessian is
   made and factored in float32, which is iterative refinement and ends at float64's answer.

   - The Hessian at the shared start is the whole pool's less the points that are absent, or the
     sum over those that are present, whichever are fewer.
   - A smooth loss keeps its factor for several steps, which are corrected by what the gradients
     since then have told of the curvature (L-BFGS), and makes a new one when that is cheaper than
     the steps that it would save. For the squared hinge the factor is always the current one: the
     points that have crossed their margin are added or taken away.
   - F is convex along a line: a step that overshoots, by the slope at its end, is shortened.

   A subset that does not get there (a Hessian that float32 cannot factor, too many steps) is left
   to the caller: `reached` says so. The answer to a subset depends on nothing but the subset. */

#include <float.h>
#include <math.h>

#include "counted.h"
#include "room.h"
#include "vectors.h"

enum { LOGISTIC, SQUARED_HINGE, SQUARE };

enum {
    MOST_STEPS = 80,
    MOST_LINE = 20,
    PATIENCE = 3, /* stalled steps within the tolerance that end a subset at rounding's floor */
    PAIRS = 8,    /* of L-BFGS */
    CHUNK = 32,   /* points whose outer products are summed while they lie in the first cache */
    SPARE = 16,   /* floats after a row of operands, for tiles that end beyond it */
    ROWS = 6,     /* of a tile of the Hessian: so many sums and operands are what registers hold */
#if BYTES == 64
    BLOCKS = 4,
#else
    BLOCKS = 2,
#endif
};

#define FINISHED 1e-4   /* gradient norm / tolerance that ends a subset */
#define STALLED 0.5     /* share of its norm that a step may leave before it counts as stalled */
#define OVERSHOT 0.5    /* slope at a step's end / at its beginning, beyond which it is shortened */
#define HINGE_SLOPE 0.1 /* the same where evaluating a slope costs next to nothing */
#define FINE 1e5        /* gradient norm / goal, from which what float32 rounds is below the goal */
#define TOLD 1e-3       /* of the tolerance: by how much a gradient norm may be wrong */

typedef struct {
    int64_t points, size, width; /* size = features + 1; width: widened with zeros */
    int64_t loss;
    double C;
    const double *design;        /* [points, width]: [x, 1] */
    const float *scaled;         /* [points, width]: design times unit */
    const double *unit;          /* [width]: what makes columns alike in size */
    const double *penalty;       /* [width] */
    const double *labels;        /* [points]: +1 and -1, or numbers */
    const double *start;         /* [width]: where all subsets start */
    const double *start_scores;  /* [points] */
    const double *start_slopes;  /* [points]: the loss's derivative there ... */
    const double *start_curvatures; /* [points]: ... and its second */
    const double *start_data;    /* [width]: C times the sum of slopes times points */
    const float *start_hessian;  /* [width + ROWS, width]: of all points there, scaled; or NULL */
} Pool;

typedef struct {
    int64_t count, padded;  /* points of the subset; a multiple of DOUBLES */
    int64_t *place;         /* in the pool */
    double *factor;         /* C w */
    double *label, *score, *along, *slope, *curvature, *summed;
    double *theta, *gradient, *data, *before, *direction;
    double *steps, *changes; /* [PAIRS, width] of L-BFGS */
    double inner[PAIRS], share[PAIRS];
    int64_t pairs;
    float *hessian, *upper, *bare, *right, *rows; /* bare: the penalty alone */
    int64_t *changed;
    float *change;
    void *memory;
} Work;

static size_t matrix_bytes(const Pool *pool) { return (size_t)pool->width * pool->width * 4; }

/* Nothing but the penalty, in scaled coordinates; ones for columns that only widen. */
static void set_penalty(const Pool *pool, float *hessian) {
    memset(hessian, 0, matrix_bytes(pool));
    for (int64_t j = pool->size; j < pool->width; j++) hessian[j * pool->width + j] = 1;
    for (int64_t j = 0; j < pool->size; j++)
        hessian[j * pool->width + j] = (float)(pool->penalty[j] * pool->unit[j] * pool->unit[j]);
}

static int begin(Work *work, const Pool *pool) {
    size_t points = (pool->points + FLOATS) * 8, row = pool->width * 8;
    size_t matrix = (size_t)(pool->width + ROWS) * pool->width * 4;
    Part parts[] = {
        {&work->place, points},     {&work->factor, points},    {&work->label, points},
        {&work->score, points},     {&work->along, points},     {&work->slope, points},
        {&work->curvature, points}, {&work->summed, points},    {&work->changed, points},
        {&work->change, points},    {&work->theta, row},        {&work->gradient, row},
        {&work->data, row},         {&work->before, row},       {&work->direction, row},
        {&work->steps, PAIRS * row}, {&work->changes, PAIRS * row},
        {&work->hessian, matrix},   {&work->upper, matrix},     {&work->bare, matrix},
        {&work->right, pool->width * 4},
        {&work->rows, (size_t)CHUNK * (pool->width + SPARE) * 4},
    };
    work->memory = room_for(parts, sizeof parts / sizeof *parts);
    if (work->memory == NULL) return 0;
    set_penalty(pool, work->bare);
    memcpy(work->hessian, work->bare, matrix_bytes(pool)); /* for the rows that only widen */
    return 1;
}

/* a' vector of DOUBLES points. */
INLINE vd products(const Pool *pool, const double *const *row, const double *vector) {
    vd sums[DOUBLES];
    for (int k = 0; k < DOUBLES; k++) sums[k] = (vd){0};
    for (int64_t column = 0; column < pool->width; column += DOUBLES) {
        vd part = vd_load(vector + column);
        for (int k = 0; k < DOUBLES; k++) sums[k] += vd_load(row[k] + column) * part;
    }
    return vd_sums(sums);
}

/* ---- losses ------------------------------------------------------------------------------------ */

typedef struct {
    vd slope, curvature;
} Bent;

INLINE Bent bent(int64_t loss, vd score, vd label) {
    if (loss == LOGISTIC) {
        vd margin = score * label, e = vd_exp(-vd_abs(margin)), inverse = 1 / (1 + e);
        vd wrong = vd_where(margin > 0, e * inverse, inverse);
        return (Bent){-label * wrong, e * inverse * inverse};
    }
    if (loss == SQUARED_HINGE) {
        vd lack = 1 - score * label;
        vl violated = lack > 0;
        return (Bent){vd_where(violated, -2 * label * lack, (vd){0}),
                      vd_where(violated, vd_all(2), (vd){0})};
    }
    return (Bent){score - label, vd_all(1)};
}

/* Slopes and curvatures, times their factors, at score + length along; the slope along the line. */
INLINE double bend_by(int64_t loss, Work *work, double length, double *second) {
    vd first = {0}, other = {0};
    for (int64_t i = 0; i < work->padded; i += DOUBLES) {
        vd factor = vd_load(work->factor + i), along = vd_load(work->along + i);
        Bent at = bent(loss, vd_load(work->score + i) + length * along, vd_load(work->label + i));
        vd slope = at.slope * factor, curvature = at.curvature * factor;
        first += slope * along;
        other += curvature * along * along;
        vd_store(work->slope + i, slope);
        vd_store(work->curvature + i, curvature);
    }
    *second = vd_sum(other);
    return vd_sum(first);
}

static double bend(const Pool *pool, Work *work, double length, double *second) {
    if (pool->loss == LOGISTIC) return bend_by(LOGISTIC, work, length, second);
    if (pool->loss == SQUARED_HINGE) return bend_by(SQUARED_HINGE, work, length, second);
    return bend_by(SQUARE, work, length, second);
}

static double objective_of(const Pool *pool, const Work *work) {
    vd sum = {0};
    for (int64_t i = 0; i < work->padded; i += DOUBLES) {
        vd score = vd_load(work->score + i), label = vd_load(work->label + i), loss;
        if (pool->loss == LOGISTIC) {
            vd margin = score * label;
            loss = vd_log1p(vd_exp(-vd_abs(margin))) + vd_max(-margin, (vd){0});
        } else if (pool->loss == SQUARED_HINGE) {
            vd lack = vd_max(1 - score * label, (vd){0});
            loss = lack * lack;
        } else {
            loss = (score - label) * (score - label) / 2;
        }
        sum += loss * vd_load(work->factor + i);
    }
    double total = vd_sum(sum);
    for (int64_t j = 0; j < pool->size; j++)
        total += pool->penalty[j] * work->theta[j] * work->theta[j] / 2;
    return total;
}

/* ---- gradients --------------------------------------------------------------------------------- */

/* data += sum_k slope_k a_k over DOUBLES points. */
INLINE void add_rows(const Pool *pool, const double *const *row, const double *slope, double *data) {
    vd times[DOUBLES];
    for (int k = 0; k < DOUBLES; k++) times[k] = vd_all(slope[k]);
    for (int64_t column = 0; column < pool->width; column += DOUBLES) {
        vd even = vd_load(data + column), odd = {0};
        for (int k = 0; k < DOUBLES; k += 2) {
            even += vd_load(row[k] + column) * times[k];
            odd += vd_load(row[k + 1] + column) * times[k + 1];
        }
        vd_store(data + column, even + odd);
    }
}

INLINE void rows_of(const Pool *pool, const Work *work, int64_t first, const double **row) {
    for (int k = 0; k < DOUBLES; k++) row[k] = pool->design + work->place[first + k] * pool->width;
}

/* data = sum_i slope_i a_i. */
static void data_gradient(const Pool *pool, Work *work) {
    count_doubles(2.0 * work->count * pool->size);
    memset(work->data, 0, pool->width * 8);
    for (int64_t first = 0; first < work->padded; first += DOUBLES) {
        const double *row[DOUBLES];
        rows_of(pool, work, first, row);
        add_rows(pool, row, work->slope + first, work->data);
    }
}

/* gradient = data + penalty theta; its largest absolute entry, infinite if one is not finite. */
static double gradient_norm(const Pool *pool, Work *work) {
    vd largest = {0};
    for (int64_t column = 0; column < pool->width; column += DOUBLES) {
        vd entry = vd_load(work->data + column) +
                   vd_load(pool->penalty + column) * vd_load(work->theta + column);
        vd_store(work->gradient + column, entry);
        /* In this order one that is no number stays. */
        largest = vd_where(vd_abs(entry) <= largest, largest, vd_abs(entry));
    }
    double norm = 0;
    for (int lane = 0; lane < DOUBLES; lane++) {
        if (!(largest[lane] <= DBL_MAX)) return INFINITY;
        norm = largest[lane] > norm ? largest[lane] : norm;
    }
    return norm;
}

/* along = a_i' direction, and in the same pass over the points slopes, curvatures and (but for the
   hinge) `data` at the end of the whole step; the slope of the data term there, and its second
   derivative. */
INLINE double whole_step_by(int64_t loss, const Pool *pool, Work *work, double *second) {
    vd first_sum = {0}, second_sum = {0};
    count_doubles((loss == SQUARED_HINGE ? 2.0 : 4.0) * work->count * pool->size);
    memset(work->data, 0, pool->width * 8);
    for (int64_t first = 0; first < work->padded; first += DOUBLES) {
        const double *row[DOUBLES];
        rows_of(pool, work, first, row);
        vd along = products(pool, row, work->direction), factor = vd_load(work->factor + first);
        Bent at = bent(loss, vd_load(work->score + first) + along, vd_load(work->label + first));
        vd slope = at.slope * factor, curvature = at.curvature * factor;
        first_sum += slope * along;
        second_sum += curvature * along * along;
        vd_store(work->along + first, along);
        vd_store(work->slope + first, slope);
        vd_store(work->curvature + first, curvature);
        /* Steps of the hinge are often shortened, and then that would be lost. */
        if (loss != SQUARED_HINGE) add_rows(pool, row, work->slope + first, work->data);
    }
    *second = vd_sum(second_sum);
    return vd_sum(first_sum);
}

static double whole_step(const Pool *pool, Work *work, double *second) {
    if (pool->loss == LOGISTIC) return whole_step_by(LOGISTIC, pool, work, second);
    if (pool->loss == SQUARED_HINGE) return whole_step_by(SQUARED_HINGE, pool, work, second);
    return whole_step_by(SQUARE, pool, work, second);
}

/* The same step for a short direction: points and what they change are float32, which adds the change
   to `data`. Rounding is some 1e-7 of the gradient before. By how much the slope has grown. */
INLINE double short_step_by(int64_t loss, const Pool *pool, Work *work, double *second) {
    vd first_sum = {0}, second_sum = {0};
    int64_t width = pool->width;
    float *direction = work->right, *change = work->rows, differs[FLOATS];
    count_floats(4.0 * work->count * pool->size);
    for (int64_t j = 0; j < width; j++) direction[j] = (float)(work->direction[j] / pool->unit[j]);
    memset(change, 0, width * 4);
    for (int64_t first = 0; first < work->count; first += FLOATS) {
        const float *row[FLOATS];
        vf sums[FLOATS];
        for (int k = 0; k < FLOATS; k++) {
            row[k] = pool->scaled + work->place[first + k] * width;
            sums[k] = (vf){0};
        }
        for (int64_t column = 0; column < width; column += FLOATS) {
            vf part = vf_load(direction + column);
            for (int k = 0; k < FLOATS; k++) sums[k] += vf_load(row[k] + column) * part;
        }
        vf found = vf_sums(sums);
        for (int64_t half = 0; half < FLOATS; half += DOUBLES) {
            int64_t i = first + half;
            vd along = vd_wide((const float *)&found + half), factor = vd_load(work->factor + i);
            Bent at = bent(loss, vd_load(work->score + i) + along, vd_load(work->label + i));
            vd slope = at.slope * factor, curvature = at.curvature * factor;
            vd differ = slope - vd_load(work->slope + i);
            first_sum += differ * along;
            second_sum += curvature * along * along;
            vd_narrow(differs + half, differ);
            vd_store(work->along + i, along);
            vd_store(work->slope + i, slope);
            vd_store(work->curvature + i, curvature);
        }
        for (int64_t column = 0; column < width; column += FLOATS) {
            vf even = vf_load(change + column), odd = {0};
            for (int k = 0; k < FLOATS; k += 2) {
                even += vf_load(row[k] + column) * differs[k];
                odd += vf_load(row[k + 1] + column) * differs[k + 1];
            }
            vf_store(change + column, even + odd);
        }
    }
    for (int64_t j = 0; j < width; j++) work->data[j] += change[j] / pool->unit[j];
    *second = vd_sum(second_sum);
    return vd_sum(first_sum);
}

static double short_step(const Pool *pool, Work *work, double *second) {
    if (pool->loss == LOGISTIC) return short_step_by(LOGISTIC, pool, work, second);
    if (pool->loss == SQUARED_HINGE) return short_step_by(SQUARED_HINGE, pool, work, second);
    return short_step_by(SQUARE, pool, work, second);
}

/* ---- the Hessian and its factor ---------------------------------------------------------------- */

/* A matrix that is summed: `to` becomes `from`, perhaps itself, plus what is summed. */
typedef struct {
    const float *from;
    float *to;
    int64_t width;
} Summed;

/* A tile of the upper triangle: rows from `top`, `vectors` vectors of columns from `left`. */
INLINE void tile(Summed matrix, const float *const *row, const float *weighted, int64_t points,
                 int64_t top, int64_t left, int vectors) {
    vf sums[ROWS][BLOCKS];
    int64_t width = matrix.width;
    for (int r = 0; r < ROWS; r++)
        for (int b = 0; b < vectors; b++)
            sums[r][b] = vf_load(matrix.from + (top + r) * width + left + b * FLOATS);
    for (int64_t i = 0; i < points; i++) {
        vf part[BLOCKS];
        for (int b = 0; b < vectors; b++) part[b] = vf_load(row[i] + left + b * FLOATS);
        for (int r = 0; r < ROWS; r++) {
            float own = weighted[i * (width + SPARE) + top + r];
            for (int b = 0; b < vectors; b++) sums[r][b] += own * part[b];
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int b = 0; b < vectors; b++)
            vf_store(matrix.to + (top + r) * width + left + b * FLOATS, sums[r][b]);
}

/* ROWS rows of the matrix + sum_i weighted_i row_i', on and above the diagonal. */
static void tiles(Summed matrix, const float *const *row, const float *weighted, int64_t points,
                  int64_t top) {
    int64_t left = top / FLOATS * FLOATS;
    for (; left + BLOCKS * FLOATS <= matrix.width; left += BLOCKS * FLOATS)
        tile(matrix, row, weighted, points, top, left, BLOCKS);
    int64_t rest = (matrix.width - left) / FLOATS;
#if BYTES == 64
    if (rest == 3) tile(matrix, row, weighted, points, top, left, 3);
    if (rest == 2) tile(matrix, row, weighted, points, top, left, 2);
#endif
    if (rest == 1) tile(matrix, row, weighted, points, top, left, 1);
}

/* to = from + sum_k change_k a a' over the changed places; entries on and above the diagonal. */
static void add_outer(const Pool *pool, Work *work, const float *from, float *to, int64_t count) {
    int64_t width = pool->width;
    if (count == 0 && from != to) memcpy(to, from, matrix_bytes(pool));
    count_floats((double)count * pool->size * (pool->size + 1));
    for (int64_t first = 0; first < count; first += CHUNK) {
        int64_t points = count - first < CHUNK ? count - first : CHUNK;
        const float *row[CHUNK];
        for (int64_t i = 0; i < points; i++) {
            row[i] = pool->scaled + work->changed[first + i] * width;
            float factor = work->change[first + i];
            for (int64_t column = 0; column < width; column += FLOATS)
                vf_store(work->rows + i * (width + SPARE) + column,
                         factor * vf_load(row[i] + column));
        }
        Summed matrix = {first == 0 ? from : to, to, width};
        for (int64_t top = 0; top < pool->size; top += ROWS)
            tiles(matrix, row, work->rows, points, top);
    }
}

/* The Hessian from the curvatures of all the subset's points. */
static void make_hessian(const Pool *pool, Work *work) {
    int64_t count = 0;
    for (int64_t i = 0; i < work->count; i++) {
        work->changed[count] = work->place[i];
        work->change[count] = (float)work->curvature[i];
        count += work->curvature[i] != 0;
    }
    add_outer(pool, work, work->bare, work->hessian, count);
}

/* The Hessian and `data` at the shared start from the whole pool's, if few weights differ from one. */
static int adapt_start(const Pool *pool, Work *work, const double *weights) {
    int64_t count = 0, kept = 0, *place = work->changed;
    double *slope = work->along;
    for (int64_t i = 0; i < pool->points; i++) {
        place[count] = i;
        slope[count] = pool->C * (weights[i] - 1) * pool->start_slopes[i];
        count += weights[i] != 1;
        if (count >= work->count) return 0;
    }
    for (int64_t k = count; k < count + DOUBLES; k++) place[k] = 0, slope[k] = 0;
    memcpy(work->data, pool->start_data, pool->width * 8);
    for (int64_t first = 0; first < count; first += DOUBLES) {
        const double *row[DOUBLES];
        for (int k = 0; k < DOUBLES; k++) row[k] = pool->design + place[first + k] * pool->width;
        add_rows(pool, row, slope + first, work->data);
    }
    count_doubles(2.0 * count * pool->size);
    for (int64_t k = 0; k < count; k++) {
        int64_t i = place[k];
        double curvature = pool->start_curvatures[i];
        place[kept] = i;
        work->change[kept] = (float)(pool->C * curvature * (weights[i] - 1));
        kept += curvature != 0;
    }
    add_outer(pool, work, pool->start_hessian, work->hessian, kept);
    return 1;
}

/* One diagonal block of FLOATS rows: its inverse transposed factor, E = (U')^-1, row after row. */
INLINE int factorise_block(const float *block, const float *old, int64_t width, vf *inverse) {
    vf rows[FLOATS];
    float pivots[FLOATS];
    int fine = 1;
    for (int k = 0; k < FLOATS; k++) {
        rows[k] = vf_load(block + k * width);
        inverse[k] = (vf){0};
        inverse[k][k] = 1;
    }
    /* Without roots, which would be waited for at each row. */
#pragma GCC unroll 16
    for (int k = 0; k < FLOATS; k++) {
        pivots[k] = rows[k][k];
        vf times = rows[k] * (1 / pivots[k]);
#pragma GCC unroll 16
        for (int j = k + 1; j < FLOATS; j++) {
            rows[j] -= times[j] * rows[k];
            inverse[j] -= times[j] * inverse[k];
        }
    }
    float roots[FLOATS];
    for (int k = 0; k < FLOATS; k++) roots[k] = 1 / sqrtf(pivots[k]);
    for (int k = 0; k < FLOATS; k++) {
        fine &= (pivots[k] > 4 * FLT_EPSILON * old[k * width + k]) & (pivots[k] <= FLT_MAX);
        inverse[k] *= roots[k];
    }
    return fine;
}

/* upper' upper = hessian by blocks; on the diagonal their E. 0 if it is not positive definite. */
static int factorise(const Pool *pool, Work *work) {
    int64_t width = pool->width;
    float *upper = work->upper, *negative = work->rows;
    count_floats((double)pool->size * pool->size * pool->size / 3);
    for (int64_t first = 0; first < width; first += FLOATS) {
        int64_t corner = first * width + first;
        /* What the blocks before have left of the Hessian; at first it is the Hessian itself. */
        const float *from = first == 0 ? work->hessian : upper, *left = from + corner;
        float *block = upper + corner;
        vf inverse[FLOATS];
        if (!factorise_block(left, work->hessian + corner, width, inverse)) return 0;
        for (int k = 0; k < FLOATS; k++) vf_store(block + k * width, inverse[k]);
        const float *row[FLOATS];
        for (int64_t column = FLOATS; column < width - first; column += FLOATS) {
            vf part[FLOATS];
            for (int k = 0; k < FLOATS; k++) part[k] = vf_load(left + k * width + column);
#pragma GCC unroll 16
            for (int k = 0; k < FLOATS; k++) {
                vf even = {0}, odd = {0};
#pragma GCC unroll 16
                for (int j = 0; j <= k; j++) {
                    vf term = block[k * width + j] * part[j];
                    if (j % 2) odd += term;
                    else even += term;
                }
                vf_store(block + k * width + column, even + odd);
                vf_store(negative + k * (width + SPARE) + first + column, -(even + odd));
            }
        }
        for (int k = 0; k < FLOATS; k++) row[k] = upper + (first + k) * width;
        Summed rest = {from, upper, width};
        for (int64_t top = first + FLOATS; top < width; top += ROWS)
            tiles(rest, row, negative, FLOATS, top);
    }
    return 1;
}

/* vector = H^-1 vector, by the factor; the vector is scaled to float32's range on the way. */
static void solve(const Pool *pool, Work *work, double *vector) {
    int64_t size = pool->size, width = pool->width;
    count_floats(2.0 * size * size);
    double largest = 1e-300;
    for (int64_t j = 0; j < size; j++) {
        double entry = fabs(vector[j] * pool->unit[j]);
        largest = entry > largest ? entry : largest;
    }
    float *right = work->right;
    for (int64_t j = 0; j < size; j++) right[j] = (float)(vector[j] * pool->unit[j] / largest);
    for (int64_t j = size; j < width; j++) right[j] = 0;
    for (int64_t first = 0; first < width; first += FLOATS) {
        const float *rows = work->upper + first * width;
        vf terms[FLOATS], own = vf_load(right + first);
        for (int k = 0; k < FLOATS; k++) terms[k] = own * vf_load(rows + k * width + first);
        vf_store(right + first, vf_sums(terms));
        for (int64_t column = first + FLOATS; column < width; column += FLOATS) {
            vf even = vf_load(right + column), odd = {0};
            for (int k = 0; k < FLOATS; k += 2) {
                even -= right[first + k] * vf_load(rows + k * width + column);
                odd -= right[first + k + 1] * vf_load(rows + (k + 1) * width + column);
            }
            vf_store(right + column, even + odd);
        }
    }
    for (int64_t first = width - FLOATS; first >= 0; first -= FLOATS) {
        const float *rows = work->upper + first * width;
        vf terms[FLOATS], even = {0}, odd = {0};
        for (int k = 0; k < FLOATS; k++) terms[k] = (vf){0};
        for (int64_t column = first + FLOATS; column < width; column += FLOATS) {
            vf found = vf_load(right + column);
            for (int k = 0; k < FLOATS; k++) terms[k] += found * vf_load(rows + k * width + column);
        }
        vf_store(right + first, vf_load(right + first) - vf_sums(terms));
        for (int k = 0; k < FLOATS; k += 2) {
            even += right[first + k] * vf_load(rows + k * width + first);
            odd += right[first + k + 1] * vf_load(rows + (k + 1) * width + first);
        }
        vf_store(right + first, even + odd);
    }
    for (int64_t j = 0; j < size; j++) vector[j] = (double)right[j] * pool->unit[j] * largest;
}

/* ---- steps ------------------------------------------------------------------------------------- */

static double dot(const Pool *pool, const double *first, const double *second) {
    vd sum = {0};
    for (int64_t j = 0; j < pool->width; j += DOUBLES) sum += vd_load(first + j) * vd_load(second + j);
    return vd_sum(sum);
}

/* to += factor * from. */
static void add(const Pool *pool, double *to, double factor, const double *from) {
    for (int64_t j = 0; j < pool->width; j += DOUBLES)
        vd_store(to + j, vd_load(to + j) + factor * vd_load(from + j));
}

/* direction = -H^-1 gradient, with H corrected by the pairs (Nocedal and Wright, algorithm 7.4). */
static void direct(const Pool *pool, Work *work) {
    int64_t width = pool->width, kept = work->pairs < PAIRS ? work->pairs : PAIRS;
    for (int64_t j = 0; j < width; j++) work->direction[j] = -work->gradient[j];
    for (int64_t age = 0; age < kept; age++) {
        int64_t k = (work->pairs - 1 - age) % PAIRS;
        work->share[k] = dot(pool, work->steps + k * width, work->direction) / work->inner[k];
        add(pool, work->direction, -work->share[k], work->changes + k * width);
    }
    solve(pool, work, work->direction);
    for (int64_t age = kept - 1; age >= 0; age--) {
        int64_t k = (work->pairs - 1 - age) % PAIRS;
        double other = dot(pool, work->changes + k * width, work->direction) / work->inner[k];
        add(pool, work->direction, work->share[k] - other, work->steps + k * width);
    }
}

/* What the last step tells of the curvature, kept for `direct`. */
static void remember(const Pool *pool, Work *work, double length) {
    int64_t width = pool->width, k = work->pairs % PAIRS;
    double *step = work->steps + k * width, *change = work->changes + k * width;
    for (int64_t j = 0; j < width; j++) {
        step[j] = length * work->direction[j];
        change[j] = work->gradient[j] - work->before[j];
    }
    work->inner[k] = dot(pool, step, change);
    /* Convexity makes it positive; at the floor of rounding it may be anything. */
    if (work->inner[k] > 1e-6 * dot(pool, step, step) * DBL_EPSILON) work->pairs++;
}

/* Whether a short step's rounding stays below what may be told of a gradient. Columns far from zero
   cancel each other in a score, and then it does not. */
static int short_enough(const Pool *pool, const Work *work, double tolerance) {
    double length = 0, widest = 0;
    vd curvature = {0};
    for (int64_t j = 0; j < pool->size; j++) {
        double spread = 1 / pool->unit[j];
        length += fabs(work->direction[j]) * spread;
        widest = spread > widest ? spread : widest;
    }
    for (int64_t p = 0; p < work->padded; p += DOUBLES) curvature += vd_load(work->curvature + p);
    return FLT_EPSILON * length * vd_sum(curvature) * widest <= TOLD * tolerance;
}

/* Goes along the direction, shorter if the whole step overshoots, and leaves slopes, curvatures and
   `data` of there; how far. */
static double advance(const Pool *pool, Work *work, double slope, int exempt, int fine) {
    double linear = 0, square = 0, length = 1, low = 0, high = INFINITY, second;
    for (int64_t j = 0; j < pool->size; j++) {
        linear += pool->penalty[j] * work->theta[j] * work->direction[j];
        square += pool->penalty[j] * work->direction[j] * work->direction[j];
    }
    int hinge = pool->loss == SQUARED_HINGE;
    double limit = (hinge ? HINGE_SLOPE : OVERSHOT) * -slope;
    double here = fine ? slope + short_step(pool, work, &second) + square
                       : linear + whole_step(pool, work, &second) + square;
    for (int attempt = 0; !exempt && attempt < MOST_LINE; attempt++) {
        if (here <= limit && (!hinge || here >= -limit)) break;
        if (here > 0) high = length;
        else low = length;
        double next = length - here / (second + square);
        if (!(next > low && next < high)) next = high < INFINITY ? (low + high) / 2 : 2 * length;
        length = next;
        here = bend(pool, work, length, &second) + linear + length * square;
    }
    if (length != 1 || (hinge && !fine)) data_gradient(pool, work);
    add(pool, work->theta, length, work->direction);
    for (int64_t i = 0; i < work->padded; i++) work->score[i] += length * work->along[i];
    return length;
}

/* Brings the factor up to date if that pays; 0 if there is none. */
static int refresh(const Pool *pool, Work *work, double rate, double norm, double goal, int must) {
    double count = (double)work->count, size = (double)pool->size, width = (double)pool->width;
    if (pool->loss == SQUARE) return 1;
    if (pool->loss == SQUARED_HINGE) {
        int64_t crossed = 0;
        for (int64_t i = 0; i < work->count; i++) {
            double change = work->curvature[i] - work->summed[i];
            work->changed[crossed] = work->place[i];
            work->change[crossed] = (float)change;
            crossed += change != 0;
        }
        if (crossed == 0) return 1;
        memcpy(work->summed, work->curvature, work->count * 8);
        if (2 * crossed > work->count) make_hessian(pool, work);
        else add_outer(pool, work, work->hessian, work->hessian, crossed);
        return factorise(pool, work);
    }
    /* In operations of a vector: products, loss, solves; the Hessian and its factor. */
    double step = count * width / DOUBLES * 2 + count * 10 + size * 12;
    double anew = count * size * width / FLOATS * 0.7 + size * size * width / FLOATS * 0.5;
    double left = rate < 0.999 ? log(goal / norm) / log(rate) : 1e6;
    if (!must && left * step < 2 * anew) return 1;
    make_hessian(pool, work);
    work->pairs = 0;
    return factorise(pool, work);
}

/* The subset's points, and slopes, curvatures, `data` and the Hessian where it starts. */
static void set_out(const Pool *pool, Work *work, const double *weights, const double *start) {
    work->count = work->pairs = 0;
    for (int64_t i = 0; i < pool->points; i++) {
        work->place[work->count] = i;
        work->factor[work->count] = pool->C * weights[i];
        work->label[work->count] = pool->labels[i];
        work->count += weights[i] != 0;
    }
    work->padded = (work->count + DOUBLES - 1) / DOUBLES * DOUBLES;
    for (int64_t p = work->count; p < work->count + FLOATS; p++) {
        work->place[p] = 0;
        work->factor[p] = work->score[p] = work->slope[p] = 0;
        work->label[p] = 1;
    }
    memcpy(work->theta, pool->start, pool->width * 8);
    int shared = start == NULL && pool->start_hessian != NULL;
    if (shared) {
        for (int64_t p = 0; p < work->padded; p++) {
            int64_t i = work->place[p];
            work->score[p] = pool->start_scores[i];
            work->slope[p] = work->factor[p] * pool->start_slopes[i];
            work->curvature[p] = work->factor[p] * pool->start_curvatures[i];
        }
        if (adapt_start(pool, work, weights)) return;
    } else {
        double second;
        if (start != NULL) memcpy(work->theta, start, pool->size * 8);
        for (int64_t p = 0; p < work->padded; p += DOUBLES) {
            const double *row[DOUBLES];
            rows_of(pool, work, p, row);
            vd_store(work->score + p, products(pool, row, work->theta));
        }
        memset(work->along, 0, work->padded * 8);
        bend(pool, work, 0, &second);
    }
    data_gradient(pool, work);
    make_hessian(pool, work);
}

/* 1 if the subset got to the tolerance. */
static int train(const Pool *pool, Work *work, const double *weights, const double *start,
                 double tolerance, double *final_norm, int64_t *taken) {
    double goal = FINISHED * tolerance;
    int stalls = 0;
    set_out(pool, work, weights, start);
    double norm = gradient_norm(pool, work);
    memcpy(work->summed, work->curvature, work->padded * 8);
    *final_norm = norm;
    *taken = 0;
    if (!factorise(pool, work)) return 0;
    for (; norm > goal && *taken < MOST_STEPS; ++*taken) {
        int within = norm <= tolerance;
        direct(pool, work);
        double slope = dot(pool, work->gradient, work->direction);
        if (!(slope < 0)) break;
        int fine = norm <= FINE * goal && short_enough(pool, work, tolerance);
        double length = advance(pool, work, slope, within, fine), old = norm;
        memcpy(work->before, work->gradient, pool->width * 8);
        norm = gradient_norm(pool, work);
        stalls = within && norm > STALLED * old ? stalls + 1 : 0;
        int stuck = stalls == PATIENCE;
        /* With a factor of just now, or always the current one, it is rounding's floor. */
        if (stuck && (pool->loss != LOGISTIC || work->pairs <= PATIENCE)) break;
        if (stuck) stalls = 0;
        if (pool->loss != SQUARED_HINGE) remember(pool, work, length);
        if (norm > goal && !refresh(pool, work, norm / old, norm, goal, stuck)) break;
    }
    *final_norm = norm;
    return norm <= tolerance;
}

/* The rows of parameters [subsets, size] for weights [subsets, points] from their own starts, or
   from the pool's where `starts` is NULL; which of them got there. -1 if there is no memory. */
int modelpred_newton(const Pool *pool, int64_t subsets, const double *weights, const double *starts,
                     double tolerance, double *parameters, double *norms, double *objectives,
                     int64_t *steps, uint8_t *reached) {
    Work work;
    if (!begin(&work, pool)) return -1;
    for (int64_t row = 0; row < subsets; row++) {
        const double *own = starts == NULL ? NULL : starts + row * pool->size;
        reached[row] = (uint8_t)train(pool, &work, weights + row * pool->points, own, tolerance,
                                      norms + row, steps + row);
        memcpy(parameters + row * pool->size, work.theta, pool->size * 8);
        objectives[row] = objective_of(pool, &work);
    }
    free(work.memory);
    return 0;
}

_Thread_local double modelpred_counted[2];

/* The operations of float32 and of float64 that this thread has counted since the last call. */
void modelpred_operations(double *found) {
    memcpy(found, modelpred_counted, sizeof modelpred_counted);
    modelpred_counted[0] = modelpred_counted[1] = 0;
}

/* Must be kernels.py's VERSION: raise both when what Python hands over changes. */
int modelpred_version(void) { return 2; }

/* Of all points with weight one, at the pool's start: slopes and curvatures [points], data [width]
   and hessian [width + ROWS, width]. -1 if there is no memory. */
int modelpred_start(const Pool *pool, double *slopes, double *curvatures, double *data,
                    float *hessian) {
    Work work;
    if (!begin(&work, pool)) return -1;
    memset(data, 0, pool->width * 8);
    for (int64_t i = 0; i < pool->points; i++) {
        Bent at = bent(pool->loss, vd_all(pool->start_scores[i]), vd_all(pool->labels[i]));
        slopes[i] = at.slope[0];
        curvatures[i] = at.curvature[0];
        work.changed[i] = i;
        work.change[i] = (float)(pool->C * curvatures[i]);
        for (int64_t j = 0; j < pool->size; j++)
            data[j] += pool->C * slopes[i] * pool->design[i * pool->width + j];
    }
    set_penalty(pool, hessian);
    add_outer(pool, &work, hessian, hessian, pool->points);
    free(work.memory);
    return 0;
}
