/* Vectors of the widest kind that this file is compiled for, by the compiler's own vector types.

   Loads and stores may be at any address: the types promise no more alignment than their elements. */

#ifndef MODELPRED_VECTORS_H
#define MODELPRED_VECTORS_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

#define FLOATS (BYTES / 4)
#define DOUBLES (BYTES / 8)

typedef float vf __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef double vd __attribute__((vector_size(BYTES), aligned(8), may_alias));
typedef int32_t vi __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef int64_t vl __attribute__((vector_size(BYTES), aligned(8), may_alias));

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define SHUFFLED_FLOATS SHUFFLED
#else
#define SHUFFLED(a, b, ...) __builtin_shuffle(a, b, (vl){__VA_ARGS__})
#define SHUFFLED_FLOATS(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

#define INLINE static inline __attribute__((always_inline))

INLINE vf vf_load(const float *from) { return *(const vf *)from; }
INLINE void vf_store(float *to, vf value) { *(vf *)to = value; }
INLINE vd vd_load(const double *from) { return *(const vd *)from; }
INLINE void vd_store(double *to, vd value) { *(vd *)to = value; }
INLINE vf vf_all(float value) { return value - (vf){0}; }
INLINE vd vd_all(double value) { return value - (vd){0}; }

/* first where the mask is all ones, second where it is zero. */
INLINE vd vd_where(vl mask, vd first, vd second) {
    return (vd)(((vl)first & mask) | ((vl)second & ~mask));
}
INLINE vf vf_where(vi mask, vf first, vf second) {
    return (vf)(((vi)first & mask) | ((vi)second & ~mask));
}
INLINE vd vd_max(vd first, vd second) { return vd_where(first > second, first, second); }
INLINE vf vf_max(vf first, vf second) { return vf_where(first > second, first, second); }
INLINE vd vd_abs(vd value) { return (vd)((vl)value & INT64_MAX); }

/* The numbers in float32. */
INLINE void vd_narrow(float *to, vd value) {
    typedef float half __attribute__((vector_size(BYTES / 2)));
    half narrow = __builtin_convertvector(value, half);
    memcpy(to, &narrow, sizeof narrow);
}

/* The next numbers in float64. */
INLINE vd vd_wide(const float *from) {
    typedef float half __attribute__((vector_size(BYTES / 2)));
    half narrow;
    memcpy(&narrow, from, sizeof narrow);
    return __builtin_convertvector(narrow, vd);
}

INLINE double vd_sum(vd value) {
    double sum = 0;
    for (int lane = 0; lane < DOUBLES; lane++) sum += value[lane];
    return sum;
}

/* Lane k of the value is the sum over the eight lanes of rows[k]. An expression, so that it serves both types. */
#define HALVES(SHUFFLE, rows, k, ...) SHUFFLE((rows)[2 * (k)], (rows)[2 * (k) + 1], __VA_ARGS__)
#define SUMS_OF_EIGHT(SHUFFLE, rows, pairs, fours)                                        \
    ({                                                                                    \
        for (int k = 0; k < 4; k++)                                                       \
            pairs[k] = HALVES(SHUFFLE, rows, k, 0, 8, 2, 10, 4, 12, 6, 14) +              \
                       HALVES(SHUFFLE, rows, k, 1, 9, 3, 11, 5, 13, 7, 15);               \
        for (int k = 0; k < 2; k++)                                                       \
            fours[k] = HALVES(SHUFFLE, pairs, k, 0, 1, 8, 9, 4, 5, 12, 13) +              \
                       HALVES(SHUFFLE, pairs, k, 2, 3, 10, 11, 6, 7, 14, 15);             \
        HALVES(SHUFFLE, fours, 0, 0, 1, 2, 3, 8, 9, 10, 11) +                             \
            HALVES(SHUFFLE, fours, 0, 4, 5, 6, 7, 12, 13, 14, 15);                        \
    })

/* Lane k of the result is the sum over the lanes of rows[k]. */
INLINE vd vd_sums(const vd *rows) {
#if DOUBLES == 8
    vd pairs[4], fours[2];
    return SUMS_OF_EIGHT(SHUFFLED, rows, pairs, fours);
#elif DOUBLES == 4
    vd pairs[2];
    for (int k = 0; k < 2; k++)
        pairs[k] = SHUFFLED(rows[2 * k], rows[2 * k + 1], 0, 4, 2, 6) +
                   SHUFFLED(rows[2 * k], rows[2 * k + 1], 1, 5, 3, 7);
    return SHUFFLED(pairs[0], pairs[1], 0, 1, 4, 5) + SHUFFLED(pairs[0], pairs[1], 2, 3, 6, 7);
#else
    return SHUFFLED(rows[0], rows[1], 0, 2) + SHUFFLED(rows[0], rows[1], 1, 3);
#endif
}

INLINE vf vf_sums(const vf *rows) {
    vf next[FLOATS / 2];
#if FLOATS == 16
    vf fours[4], eights[2];
    for (int k = 0; k < 8; k++)
        next[k] = SHUFFLED_FLOATS(rows[2 * k], rows[2 * k + 1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10,
                                  26, 12, 28, 14, 30) +
                  SHUFFLED_FLOATS(rows[2 * k], rows[2 * k + 1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11,
                                  27, 13, 29, 15, 31);
    for (int k = 0; k < 4; k++)
        fours[k] = SHUFFLED_FLOATS(next[2 * k], next[2 * k + 1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24,
                                   25, 12, 13, 28, 29) +
                   SHUFFLED_FLOATS(next[2 * k], next[2 * k + 1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11,
                                   26, 27, 14, 15, 30, 31);
    for (int k = 0; k < 2; k++)
        eights[k] = SHUFFLED_FLOATS(fours[2 * k], fours[2 * k + 1], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9,
                                    10, 11, 24, 25, 26, 27) +
                    SHUFFLED_FLOATS(fours[2 * k], fours[2 * k + 1], 4, 5, 6, 7, 20, 21, 22, 23, 12,
                                    13, 14, 15, 28, 29, 30, 31);
    return SHUFFLED_FLOATS(eights[0], eights[1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22,
                           23) +
           SHUFFLED_FLOATS(eights[0], eights[1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29,
                           30, 31);
#elif FLOATS == 8
    vf fours[2];
    return SUMS_OF_EIGHT(SHUFFLED_FLOATS, rows, next, fours);
#else
    for (int k = 0; k < 2; k++)
        next[k] = SHUFFLED_FLOATS(rows[2 * k], rows[2 * k + 1], 0, 4, 2, 6) +
                  SHUFFLED_FLOATS(rows[2 * k], rows[2 * k + 1], 1, 5, 3, 7);
    return SHUFFLED_FLOATS(next[0], next[1], 0, 1, 4, 5) +
           SHUFFLED_FLOATS(next[0], next[1], 2, 3, 6, 7);
#endif
}

/* exp(x) for x <= 0, to the last digit or two: 2^n times a Taylor polynomial on half of log 2. */
INLINE vd vd_exp(vd x) {
    const vd round = vd_all(6755399441055744.0); /* 1.5 * 2^52: adding it rounds to whole numbers */
    x = vd_max(x, vd_all(-708.0));
    vd shifted = x * 1.4426950408889634 + round;
    vd whole = shifted - round;
    vd rest = x - whole * 0.693147180369123816490 - whole * 1.90821492927058770002e-10;
    static const double inverse[] = {1 / 6227020800.0, 1 / 479001600.0, 1 / 39916800.0,
                                     1 / 3628800.0,    1 / 362880.0,    1 / 40320.0,
                                     1 / 5040.0,       1 / 720.0,       1 / 120.0,
                                     1 / 24.0,         1 / 6.0,         0.5,
                                     1.0,              1.0};
    vd value = vd_all(inverse[0]);
    for (int k = 1; k < 14; k++) value = value * rest + inverse[k];
    return value * (vd)(((vl)shifted + 1023) << 52);
}

/* exp(x) for x <= 0 in float32: 2^n times a polynomial on half of log 2. */
INLINE vf vf_exp(vf x) {
    const vf round = vf_all(12582912.0f); /* 1.5 * 2^23 */
    x = vf_max(x, vf_all(-87.0f));
    vf shifted = x * 1.44269504f + round, whole = shifted - round;
    vf rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vf value = vf_all(1 / 720.0f);
    value = value * rest + 1 / 120.0f;
    value = value * rest + 1 / 24.0f;
    value = value * rest + 1 / 6.0f;
    value = value * rest + 0.5f;
    value = value * rest + 1.0f;
    value = value * rest + 1.0f;
    return value * (vf)(((vi)shifted + 127) << 23);
}

/* log(1 + e) for 0 <= e <= 1: 2 atanh(e / (2 + e)). */
INLINE vd vd_log1p(vd e) {
    vd ratio = e / (e + 2), square = ratio * ratio;
    vd value = vd_all(1 / 33.0);
    for (int k = 31; k > 0; k -= 2) value = value * square + 1.0 / k;
    return 2 * ratio * value;
}

#endif
