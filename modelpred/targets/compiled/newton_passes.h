/* Passes over a subset's points: losses, scores and gradients, whole steps and short ones. */

#ifndef MODELPRED_NEWTON_PASSES_H
#define MODELPRED_NEWTON_PASSES_H

#include <float.h>
#include <math.h>

#include "counted.h"
#include "newton_workspace.h"
#include "vectors.h"

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

/* Calls pass(loss, ...) with the loss as a constant, so that each is compiled on its own. */
#define BY_LOSS(pass, pool, ...)                                        \
    ((pool)->loss == LOGISTIC        ? pass(LOGISTIC, __VA_ARGS__)      \
     : (pool)->loss == SQUARED_HINGE ? pass(SQUARED_HINGE, __VA_ARGS__) \
                                     : pass(SQUARE, __VA_ARGS__))

/* Slopes and curvatures of DOUBLES points, times their factors, where their scores are `by` more. */
INLINE Bent bend_points(int64_t loss, Work *work, int64_t first, vd by) {
    vd factor = vd_load(work->factor + first);
    Bent at = bent(loss, vd_load(work->score + first) + by, vd_load(work->label + first));
    at.slope *= factor;
    at.curvature *= factor;
    vd_store(work->slope + first, at.slope);
    vd_store(work->curvature + first, at.curvature);
    return at;
}

/* Slopes and curvatures at score + length along; the slope along the line. */
INLINE double bend_by(int64_t loss, Work *work, double length, double *second) {
    vd first_sum = {0}, second_sum = {0};
    for (int64_t first = 0; first < work->padded; first += DOUBLES) {
        vd along = vd_load(work->along + first);
        Bent at = bend_points(loss, work, first, length * along);
        first_sum += at.slope * along;
        second_sum += at.curvature * along * along;
    }
    *second = vd_sum(second_sum);
    return vd_sum(first_sum);
}

static double bend(const Pool *pool, Work *work, double length, double *second) {
    return BY_LOSS(bend_by, pool, work, length, second);
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
        vd along = products(pool, row, work->direction);
        Bent at = bend_points(loss, work, first, along);
        first_sum += at.slope * along;
        second_sum += at.curvature * along * along;
        vd_store(work->along + first, along);
        /* Steps of the hinge are often shortened, and then that would be lost. */
        if (loss != SQUARED_HINGE) add_rows(pool, row, work->slope + first, work->data);
    }
    *second = vd_sum(second_sum);
    return vd_sum(first_sum);
}

static double whole_step(const Pool *pool, Work *work, double *second) {
    return BY_LOSS(whole_step_by, pool, pool, work, second);
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
            vd along = vd_wide((const float *)&found + half), before = vd_load(work->slope + i);
            Bent at = bend_points(loss, work, i, along);
            vd differ = at.slope - before;
            first_sum += differ * along;
            second_sum += at.curvature * along * along;
            vd_narrow(differs + half, differ);
            vd_store(work->along + i, along);
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
    return BY_LOSS(short_step_by, pool, pool, work, second);
}

#endif
