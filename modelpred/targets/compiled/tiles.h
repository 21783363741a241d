/* Small products of matrices whose sums stay in registers. */

#ifndef MODELPRED_TILES_H
#define MODELPRED_TILES_H

#include "vectors.h"

enum {
    VECTORS = 3, /* of points, in a block */
    BLOCK = VECTORS * FLOATS,
};

/* Rows and vectors of columns of `add_products`. */
#if BYTES == 64
#define TALLEST 5
#define ACROSS 4
#else
#define TALLEST 4
#define ACROSS 2
#endif

/* sums += weights columns, for `tall` rows of weights [_, stride] and `vectors` vectors of points of
   columns [inputs, points]. */
INLINE void add_scores(vf (*sums)[VECTORS], const float *weights, int64_t stride,
                       const float *columns, int64_t points, int64_t inputs, int tall, int vectors) {
    for (int64_t j = 0; j < inputs; j++, columns += points) {
        vf part[VECTORS];
        for (int v = 0; v < vectors; v++) part[v] = vf_load(columns + v * FLOATS);
        for (int u = 0; u < tall; u++)
            for (int v = 0; v < vectors; v++) sums[u][v] += weights[u * stride + j] * part[v];
    }
}

/* to += weights rows, as add_products, for `across` vectors of columns. */
INLINE void add_product_columns(float *to, const float *weights, const float *rows, int64_t width,
                                int64_t points, int tall, int across) {
    vf sums[TALLEST][ACROSS];
    for (int u = 0; u < tall; u++)
        for (int a = 0; a < across; a++) sums[u][a] = vf_load(to + u * width + a * FLOATS);
    for (int64_t p = 0; p < points; p++, rows += width) {
        vf part[ACROSS];
        for (int a = 0; a < across; a++) part[a] = vf_load(rows + a * FLOATS);
        for (int u = 0; u < tall; u++)
            for (int a = 0; a < across; a++) sums[u][a] += weights[u * BLOCK + p] * part[a];
    }
    for (int u = 0; u < tall; u++)
        for (int a = 0; a < across; a++) vf_store(to + u * width + a * FLOATS, sums[u][a]);
}

/* to += weights rows, for `tall` rows of weights [_, BLOCK], rows [points, width], to [_, width]. */
INLINE void add_products(float *to, const float *weights, const float *rows, int64_t width,
                         int64_t points, int tall) {
    int64_t left = 0;
    for (; left + ACROSS * FLOATS <= width; left += ACROSS * FLOATS)
        add_product_columns(to + left, weights, rows + left, width, points, tall, ACROSS);
    int64_t rest = (width - left) / FLOATS;
#if ACROSS == 4
    if (rest == 3) add_product_columns(to + left, weights, rows + left, width, points, tall, 3);
    if (rest == 2) add_product_columns(to + left, weights, rows + left, width, points, tall, 2);
#endif
    if (rest == 1) add_product_columns(to + left, weights, rows + left, width, points, tall, 1);
}

#endif
