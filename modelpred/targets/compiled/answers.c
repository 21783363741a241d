/* What Newton directions need of a pool with one score a point: sums over the rows of many subsets.

       totals     sum_i w_i and sum_i w_i^2, and which classes have a row
       sums       sum_i w_i h_i              h_i: direction of row i
       gradients  sum_i c_i w_i (r_i(z_i + a_i' d) - r_i) a_i,   r_i: the loss's derivative in the score

   Weights are bytes, as they are stored; all else is float32. Some subsets at once share what is read of
   the rows. Where few weights differ from one, or from zero, only their rows are summed. */

#include <stdlib.h>

#include "counted.h"
#include "tiles.h"

enum { LOGISTIC, SQUARED_HINGE };
enum {
    FEW = 4,    /* so many times fewer rows than the pool has are summed one by one */
    LANE = 48,  /* points whose columns lie together: a multiple of every kind's BLOCK */
    CHUNK = 10 * LANE, /* points that all subsets read before the next: they stay in the second cache */
    BYTE = 240, /* of so many comparisons the count fits into a byte */
};

/* What all subsets near one anchor share; kernels hand it over from answers.py. */
typedef struct {
    int64_t points, padded, size, width, across, loss; /* padded: points and zeros, a multiple of LANE */
    const float *rows;            /* [padded, width]: a_i, widened with zeros */
    const float *columns;         /* [padded / LANE, size, LANE] */
    const float *factors;         /* [padded]: c_i; zero beyond the points */
    const float *labels;          /* [padded]: 0 or 1; of the hinge -1 or 1 */
    const float *scores, *slopes; /* [padded]: z_i and r_i */
    const float *directions;      /* [padded, across]: h_i, widened with zeros */
    const float *all;             /* [across]: their sum */
} Anchor;

typedef struct {
    int64_t points, classes;
    const int64_t *labels; /* [points]: 0 to classes - 1 */
} Counted;

/* Sums of weights and of their squares, [subsets]; seen [subsets, classes] is 1 for classes with a row. */
int modelpred_totals(const Counted *pool, int64_t subsets, const uint8_t *weights, int64_t *seen,
                     int64_t *totals, int64_t *squares) {
    memset(seen, 0, subsets * pool->classes * sizeof *seen);
    for (int64_t row = 0; row < subsets; row++, weights += pool->points, seen += pool->classes) {
        int64_t total = 0, square = 0, left = pool->classes;
        for (int64_t first = 0; first < pool->points; first += BYTE) {
            int64_t last = first + BYTE < pool->points ? first + BYTE : pool->points;
            uint32_t sum = 0, product = 0;
            for (int64_t i = first; i < last; i++) {
                sum += weights[i];
                product += (uint32_t)(weights[i] * weights[i]);
            }
            total += sum;
            square += product;
        }
        for (int64_t i = 0; left > 0 && i < pool->points; i++) {
            if (weights[i] == 0 || seen[pool->labels[i]]) continue;
            seen[pool->labels[i]] = 1;
            left--;
        }
        totals[row] = total;
        squares[row] = square;
    }
    return 0;
}

/* The weights of some rows in float32 [TALLEST, BLOCK]; of no rows beyond the points, nor of no subset. */
INLINE void widen_weights(float *to, const uint8_t *const *weights, int tall, int64_t first, int64_t points) {
    int64_t count = points - first < BLOCK ? points - first : BLOCK;
    if (count < BLOCK || tall < TALLEST) memset(to, 0, sizeof(float) * TALLEST * BLOCK);
    for (int u = 0; u < tall; u++)
        if (count == BLOCK)
            for (int p = 0; p < BLOCK; p++) to[u * BLOCK + p] = weights[u][first + p];
        else
            for (int p = 0; p < count; p++) to[u * BLOCK + p] = weights[u][first + p];
}

/* The rows whose weight is not `usual`, their number. */
static int64_t others(const uint8_t *weights, int64_t points, uint8_t usual, int64_t *places) {
    uint64_t same, eight;
    int64_t found = 0, i = 0;
    memset(&same, usual, sizeof same);
    for (; i + 8 <= points; i += 8) {
        memcpy(&eight, weights + i, sizeof eight);
        if (eight == same) continue;
        for (int64_t p = i; p < i + 8; p++) {
            places[found] = p;
            found += weights[p] != usual;
        }
    }
    for (; i < points; i++) {
        places[found] = i;
        found += weights[i] != usual;
    }
    return found;
}

static void sum_few(const Anchor *anchor, const uint8_t *weights, uint8_t usual, int64_t *places, float *to) {
    int64_t across = anchor->across, found = others(weights, anchor->points, usual, places);
    for (int64_t j = 0; j < across; j++) to[j] = usual ? anchor->all[j] : 0;
    for (int64_t k = 0; k < found; k++) {
        const float *row = anchor->directions + places[k] * across;
        vf own = vf_all((float)weights[places[k]] - usual);
        for (int64_t j = 0; j < across; j += FLOATS) vf_store(to + j, vf_load(to + j) + own * vf_load(row + j));
    }
}

/* Whether few weights differ from zero (0) or from one (1); -1 if neither. */
static int usual_of(const uint8_t *weights, int64_t points) {
    int64_t absent = 0, single = 0;
    for (int64_t first = 0; first < points; first += BYTE) {
        int64_t last = first + BYTE < points ? first + BYTE : points;
        uint8_t none = 0, one = 0;
        for (int64_t i = first; i < last; i++) {
            none += weights[i] == 0;
            one += weights[i] == 1;
        }
        absent += none;
        single += one;
    }
    if (FEW * (points - single) <= points) return 1;
    return FEW * (points - absent) <= points ? 0 : -1;
}

/* The sums of `tall` subsets, at most TALLEST. */
static void sum_dense(const Anchor *anchor, const uint8_t *const *weights, float *const *sums, int tall,
                      float *room) {
    int64_t across = anchor->across;
    float own[TALLEST * BLOCK];
    memset(room, 0, sizeof(float) * TALLEST * across);
    count_floats(2.0 * tall * (double)(anchor->points * across));
    for (int64_t first = 0; first < anchor->padded; first += BLOCK) {
        widen_weights(own, weights, tall, first, anchor->points);
        add_products(room, own, anchor->directions + first * across, across, BLOCK, TALLEST);
    }
    for (int u = 0; u < tall; u++) memcpy(sums[u], room + u * across, across * sizeof(float));
}

/* sum_i w_i h_i, sums [subsets, across]. -1 without memory. */
int modelpred_sums(const Anchor *anchor, int64_t subsets, const uint8_t *weights, float *sums) {
    const uint8_t *waiting[TALLEST];
    float *theirs[TALLEST];
    int64_t *places = malloc((anchor->points + 8) * sizeof *places);
    float *room = malloc(TALLEST * anchor->across * sizeof *room);
    int dense = 0, failed = !places || !room;
    for (int64_t row = 0; !failed && row < subsets; row++) {
        const uint8_t *own = weights + row * anchor->points;
        float *to = sums + row * anchor->across;
        int usual = usual_of(own, anchor->points);
        if (usual >= 0) {
            sum_few(anchor, own, (uint8_t)usual, places, to);
            continue;
        }
        waiting[dense] = own;
        theirs[dense++] = to;
        if (dense < TALLEST) continue;
        sum_dense(anchor, waiting, theirs, dense, room);
        dense = 0;
    }
    if (dense) sum_dense(anchor, waiting, theirs, dense, room);
    free(places);
    free(room);
    return failed ? -1 : 0;
}

/* Slopes times c w of TALLEST subsets at VECTORS vectors of points, from their scores. */
INLINE void slopes_of(const Anchor *anchor, vf (*scores)[VECTORS], int64_t first, const float *weights,
                      float *slopes) {
    for (int v = 0; v < VECTORS; v++) {
        int64_t at = first + v * FLOATS;
        vf label = vf_load(anchor->labels + at), before = vf_load(anchor->slopes + at);
        vf factor = vf_load(anchor->factors + at);
        for (int u = 0; u < TALLEST; u++) {
            vf score = scores[u][v], slope;
            if (anchor->loss == LOGISTIC) {
                vi positive = score > 0;
                vf tail = vf_exp(vf_where(positive, -score, score)), larger = 1 / (1 + tail);
                slope = vf_where(positive, larger, 1 - larger) - label;
            } else {
                vf room = score * label - 1;
                slope = 2 * label * vf_where(room < 0, room, vf_all(0));
            }
            vf own = vf_load(weights + u * BLOCK + v * FLOATS) * factor;
            vf_store(slopes + u * BLOCK + v * FLOATS, own * (slope - before));
        }
    }
}

/* sums += what the points from `first` to `last` add to the gradients of `tall` subsets. */
static void add_gradients(const Anchor *anchor, const uint8_t *const *weights, int tall, int64_t first,
                          int64_t last, const float *moved, float *sums) {
    float own[TALLEST * BLOCK], slopes[TALLEST * BLOCK];
    for (; first < last; first += BLOCK) {
        const float *columns = anchor->columns + first / LANE * LANE * anchor->size + first % LANE;
        vf scores[TALLEST][VECTORS];
        for (int u = 0; u < TALLEST; u++)
            for (int v = 0; v < VECTORS; v++) scores[u][v] = vf_load(anchor->scores + first + v * FLOATS);
        widen_weights(own, weights, tall, first, anchor->points);
        add_scores(scores, moved, anchor->width, columns, LANE, anchor->size, TALLEST, VECTORS);
        slopes_of(anchor, scores, first, own, slopes);
        add_products(sums, slopes, anchor->rows + first * anchor->width, anchor->width, BLOCK, TALLEST);
    }
}

/* The gradients [subsets, width] of subsets moved by moves [subsets, width] from the anchor. -1 without
   memory. */
int modelpred_gradients(const Anchor *anchor, int64_t subsets, const uint8_t *weights, const float *moves,
                        float *gradients) {
    int64_t width = anchor->width, padded = anchor->padded;
    size_t row_bytes = width * sizeof(float);
    float *moved = malloc(2 * TALLEST * row_bytes), *sums = moved + TALLEST * width;
    if (!moved) return -1;
    memset(gradients, 0, subsets * row_bytes);
    memset(moved, 0, 2 * TALLEST * row_bytes);
    count_floats(4.0 * (double)subsets * (double)(anchor->points * anchor->size));
    for (int64_t first = 0; first < padded; first += CHUNK) {
        int64_t last = first + CHUNK < padded ? first + CHUNK : padded;
        for (int64_t row = 0; row < subsets; row += TALLEST) {
            int tall = subsets - row < TALLEST ? (int)(subsets - row) : TALLEST;
            const uint8_t *theirs[TALLEST];
            for (int u = 0; u < tall; u++) theirs[u] = weights + (row + u) * anchor->points;
            memcpy(moved, moves + row * width, tall * row_bytes);
            memcpy(sums, gradients + row * width, tall * row_bytes);
            add_gradients(anchor, theirs, tall, first, last, moved, sums);
            memcpy(gradients + row * width, sums, tall * row_bytes);
        }
    }
    free(moved);
    return 0;
}
