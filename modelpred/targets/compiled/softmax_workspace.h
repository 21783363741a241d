/* What softmax.c knows of a pool, and the memory that a subset needs. */

#ifndef MODELPRED_SOFTMAX_WORKSPACE_H
#define MODELPRED_SOFTMAX_WORKSPACE_H

#include "workspace.h"
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
} Workspace;

static int begin(Workspace *workspace, const Pool *pool) {
    size_t most = (pool->points + FLOATS) / FLOATS * FLOATS, classes = pool->classes;
    size_t all = (classes + TALL) * pool->width;
    workspace->all = pool->classes * pool->width;
    Part parts[] = {
        {&workspace->place, most * 8},         {&workspace->factor, most * 8},    {&workspace->label, most * 8},
        {&workspace->slopes, classes * GRADED * 8},
        {&workspace->bends, most * 8},         {&workspace->curvature, most * 4},
        {&workspace->theta, all * 8},          {&workspace->trial, all * 8},      {&workspace->gradient, all * 8},
        {&workspace->other, all * 8},          {&workspace->direction, all * 8},  {&workspace->solution, all * 4},
        {&workspace->remaining, all * 4},      {&workspace->search, all * 4},     {&workspace->product, all * 4},
        {&workspace->scaled_rest, all * 4},
        {&workspace->coupled, (classes * (classes + 1) / 2 + TALL) * pool->width * 4},
        {&workspace->squares, BLOCK * pool->width * 4},
        {&workspace->shares, (classes * (classes + 1) / 2 + TALL) * BLOCK * 4},
        {&workspace->scores, classes * most * 8},
        {&workspace->chance, classes * most * 4},
        {&workspace->scaled, classes * most * 4},
        {&workspace->near, classes * most * 4},
        {&workspace->weighted, classes * most * 4},
        {&workspace->rows, most * pool->width * 4},
        {&workspace->columns, most * pool->width * 4},
        {&workspace->along, (classes + TALL) * BLOCK * 4},
        {&workspace->pairs, 4 * PAIRS * workspace->all * 4},
    };
    workspace->memory = workspace_for(parts, sizeof parts / sizeof *parts);
    if (workspace->memory == NULL) return 0;
    for (int64_t k = 0; k < PAIRS; k++) {
        workspace->known[k] = workspace->pairs + 2 * k * workspace->all;
        workspace->fresh[k] = workspace->pairs + 2 * (PAIRS + k) * workspace->all;
    }
    return 1;
}

#endif
