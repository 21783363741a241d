/* How far the derivatives of a loss in the scores are from those at an anchor, in half precision.

       out = C w_i (p_i(anchor scores + scores) - p_i(anchor scores))

   with p the softmax over the classes, or the sigmoid of a single score. Scores lie as
   [classes, subsets, points] and are overwritten. Products read and write bfloat16, the upper half of a
   float32; here all is float32 in between, in one pass over the memory. */

#include "vectors.h"

enum { MOST_CLASSES = 128 };

/* What all subsets share; kernels hand it over from slopes.py. */
typedef struct {
    int64_t points, classes;
    double C;
    const float *scores, *chances; /* [classes, points] at the anchor */
} Anchor;

typedef uint16_t halves __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));
typedef uint32_t vu __attribute__((vector_size(BYTES), aligned(4), may_alias));

INLINE vf widen(const uint16_t *from) {
    return (vf)(__builtin_convertvector(*(const halves *)from, vu) << 16);
}

/* To the nearest, ties to even. */
INLINE void narrow(uint16_t *to, vf value) {
    vu bits = (vu)value;
    bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    *(halves *)to = __builtin_convertvector(bits, halves);
}

/* The changes of FLOATS points; `stride` apart lie the classes of `scores`, `wide` those of the anchor. */
INLINE void change(const float *at, const float *chances, int64_t wide, int64_t classes, vf scale,
                   uint16_t *scores, int64_t stride) {
    vf value[MOST_CLASSES];
    if (classes == 1) {
        vf score = widen(scores) + vf_load(at);
        vi positive = score > 0;
        vf tail = vf_exp(vf_where(positive, -score, score)), larger = 1 / (1 + tail);
        narrow(scores, scale * (vf_where(positive, larger, 1 - larger) - vf_load(chances)));
        return;
    }
    vf highest = vf_all(-3e38f), sum = vf_all(0);
    for (int64_t k = 0; k < classes; k++) {
        value[k] = widen(scores + k * stride) + vf_load(at + k * wide);
        highest = vf_max(highest, value[k]);
    }
    for (int64_t k = 0; k < classes; k++) {
        value[k] = vf_exp(value[k] - highest);
        sum += value[k];
    }
    vf inverse = 1 / sum;
    for (int64_t k = 0; k < classes; k++)
        narrow(scores + k * stride, scale * (value[k] * inverse - vf_load(chances + k * wide)));
}

/* Points beyond the last whole vector, by a copy. */
static void change_rest(const Anchor *anchor, int64_t first, const uint16_t *weights, uint16_t *scores,
                        int64_t stride) {
    float at[MOST_CLASSES * FLOATS] = {0}, chances[MOST_CLASSES * FLOATS] = {0};
    uint16_t copy[MOST_CLASSES * FLOATS] = {0}, own[FLOATS] = {0};
    int64_t count = anchor->points - first, classes = anchor->classes;
    for (int64_t p = 0; p < count; p++) own[p] = weights[first + p];
    for (int64_t k = 0; k < classes; k++)
        for (int64_t p = 0; p < count; p++) {
            at[k * FLOATS + p] = anchor->scores[k * anchor->points + first + p];
            chances[k * FLOATS + p] = anchor->chances[k * anchor->points + first + p];
            copy[k * FLOATS + p] = scores[k * stride + first + p];
        }
    change(at, chances, FLOATS, classes, widen(own) * (float)anchor->C, copy, FLOATS);
    for (int64_t k = 0; k < classes; k++)
        for (int64_t p = 0; p < count; p++) scores[k * stride + first + p] = copy[k * FLOATS + p];
}

/* 0; 1 if there are more classes than this kernel is made for. */
int modelpred_slopes(const Anchor *anchor, int64_t subsets, const uint16_t *weights, uint16_t *scores) {
    int64_t points = anchor->points, whole = points / FLOATS * FLOATS, stride = subsets * points;
    if (anchor->classes > MOST_CLASSES) return 1;
    for (int64_t row = 0; row < subsets; row++) {
        const uint16_t *own = weights + row * points;
        uint16_t *to = scores + row * points;
        for (int64_t p = 0; p < whole; p += FLOATS)
            change(anchor->scores + p, anchor->chances + p, points, anchor->classes,
                   widen(own + p) * (float)anchor->C, to + p, stride);
        if (whole < points) change_rest(anchor, whole, own, to, stride);
    }
    return 0;
}
