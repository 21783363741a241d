/* A subset's Hessian in float32, made or adapted, its factor, and solves with it. */

#ifndef MODELPRED_NEWTON_HESSIAN_H
#define MODELPRED_NEWTON_HESSIAN_H

#include <float.h>
#include <math.h>

#include "counted.h"
#include "newton_passes.h"
#include "newton_workspace.h"
#include "vectors.h"

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
static void solve(const Pool *pool, const Work *work, double *vector) {
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

#endif
