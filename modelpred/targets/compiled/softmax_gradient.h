/* A subset's gradient, chances and objective, in float64. */

#ifndef MODELPRED_SOFTMAX_GRADIENT_H
#define MODELPRED_SOFTMAX_GRADIENT_H

#include <float.h>
#include <math.h>

#include "counted.h"
#include "softmax_workspace.h"
#include "vectors.h"

/* Scores of DOUBLES points for `tall` classes from `top`. */
INLINE void score(const Pool *pool, const Workspace *workspace, const double *theta, int64_t first, int64_t top,
                  int tall) {
    const double *row[DOUBLES];
    vd sums[AT_ONCE][DOUBLES];
    for (int p = 0; p < DOUBLES; p++) row[p] = pool->design + workspace->place[first + p] * pool->width;
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
        vd_store(workspace->scores + (top + u) * workspace->padded + first, vd_sums(sums[u]));
}

/* Chances, slopes and curvatures of DOUBLES points from their scores. */
INLINE void chances(const Pool *pool, Workspace *workspace, int64_t first, double *slope) {
    int64_t classes = pool->classes, padded = workspace->padded;
    vd highest = vd_all(-INFINITY), total = {0}, square = {0};
    vd factor = vd_load(workspace->factor + first), label = vd_load(workspace->label + first);
    for (int64_t k = 0; k < classes; k++)
        highest = vd_max(vd_load(workspace->scores + k * padded + first), highest);
    for (int64_t k = 0; k < classes; k++) {
        vd chance = vd_exp(vd_load(workspace->scores + k * padded + first) - highest);
        vd_store(slope + k * GRADED, chance);
        total += chance;
    }
    vd inverse = 1 / total, slopes = {0};
    for (int64_t k = 0; k < classes; k++) {
        vd chance = vd_load(slope + k * GRADED) * inverse, own = vd_all((double)k);
        square += chance * chance;
        vd_narrow(workspace->chance + k * padded + first, chance);
        vd_narrow(workspace->scaled + k * padded + first, chance * factor);
        vd bent = (chance - vd_where(label == own, vd_all(1), (vd){0})) * factor;
        slopes += bent * bent;
        vd_store(slope + k * GRADED, bent);
    }
    workspace->slope_squares += vd_sum(slopes);
    vd_narrow(workspace->curvature + first, factor * (1 - square));
}

/* to += slopes rows of `tall` classes from `top`, two vectors of columns from `left`. */
INLINE void add_rows(const Pool *pool, const Workspace *workspace, int64_t first, int64_t points, double *to,
                     int64_t top, int64_t left, int tall) {
    int64_t width = pool->width;
    vd sums[TALL][2];
    for (int u = 0; u < tall; u++)
        for (int a = 0; a < 2; a++) sums[u][a] = vd_load(to + (top + u) * width + left + a * DOUBLES);
    for (int64_t p = 0; p < points; p++) {
        const double *row = pool->design + workspace->place[first + p] * width + left;
        const double *slope = workspace->slopes + top * GRADED + p;
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
static double evaluate(const Pool *pool, Workspace *workspace, const double *theta, double *to) {
    int64_t width = pool->width, classes = pool->classes;
    count_doubles(4.0 * workspace->count * pool->size * classes);
    workspace->slope_squares = 0;
    for (int64_t k = 0; k < classes; k++)
        for (int64_t j = 0; j < width; j += DOUBLES)
            vd_store(to + k * width + j, vd_load(pool->penalty + j) * vd_load(theta + k * width + j));
    for (int64_t first = 0; first < workspace->padded; first += GRADED) {
        int64_t points = workspace->padded - first < GRADED ? workspace->padded - first : GRADED, top = 0;
        for (int64_t p = 0; p < points; p += DOUBLES) {
            for (top = 0; top + AT_ONCE <= classes; top += AT_ONCE)
                score(pool, workspace, theta, first + p, top, AT_ONCE);
            for (; top < classes; top++) score(pool, workspace, theta, first + p, top, 1);
            chances(pool, workspace, first + p, workspace->slopes + p);
        }
        for (int64_t left = 0; left < width; left += 2 * DOUBLES) {
            for (top = 0; top + TALL <= classes; top += TALL)
                add_rows(pool, workspace, first, points, to, top, left, TALL);
            for (; top < classes; top++) add_rows(pool, workspace, first, points, to, top, left, 1);
        }
    }
    double norm = 0;
    for (int64_t j = 0; j < workspace->all; j++) {
        if (!(fabs(to[j]) <= DBL_MAX)) return INFINITY;
        norm = fabs(to[j]) > norm ? fabs(to[j]) : norm;
    }
    return norm;
}

static double objective_of(const Pool *pool, const Workspace *workspace) {
    double sum = 0;
    for (int64_t p = 0; p < workspace->count; p++) {
        const double *score = workspace->scores + p;
        double highest = score[0], total = 0;
        for (int64_t k = 1; k < pool->classes; k++)
            highest = score[k * workspace->padded] > highest ? score[k * workspace->padded] : highest;
        for (int64_t k = 0; k < pool->classes; k++) total += exp(score[k * workspace->padded] - highest);
        sum += workspace->factor[p] * (log(total) + highest - score[(int64_t)workspace->label[p] * workspace->padded]);
    }
    for (int64_t k = 0; k < pool->classes; k++)
        for (int64_t j = 0; j < pool->size; j++) {
            double entry = workspace->theta[k * pool->width + j];
            sum += pool->penalty[j] * entry * entry / 2;
        }
    return sum;
}

#endif
