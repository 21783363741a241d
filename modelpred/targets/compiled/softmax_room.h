/* What softmax.c knows of a pool, and the memory that a subset needs. */

#ifndef MODELPRED_SOFTMAX_ROOM_H
#define MODELPRED_SOFTMAX_ROOM_H

#include "room.h"
#include "tiles.h"
#include "vectors.h"

enum {
    PAIRS = 6,   /* of directions and products kept from system to system */
    GRADED = 32, /* points of a gradient at once; so many that they lie in the first cache */
    TALL = TALLEST, /* classes of a tile */
#if BYTES == 64
    AT_ONCE = 3, /* classes whose scores in float64 are summed at once, 3 x 8 */
#else
    AT_ONCE = 2,
#endif
};

typedef struct {
    int64_t points, size, width;  /* size = features + 1; width: widened with zeros */
    int64_t classes;
    double C;
    const double *design;         /* [points, width]: [x, 1] */
    const float *turned;          /* [points, width]: design times turn */
    const float *columns;         /* [width, points]: its transposed */
    const double *turn;           /* [width, width]: theta = turn times turned theta */
    const double *back;           /* its transposed */
    const double *norm;           /* [width]: length of each column */
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
    double slope_squares;                    /* their sum over points and classes */
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

#endif
