/* What newton.c knows of a pool, and the memory that a subset needs. */

#ifndef MODELPRED_NEWTON_WORKSPACE_H
#define MODELPRED_NEWTON_WORKSPACE_H

#include "workspace.h"
#include "vectors.h"

enum { LOGISTIC, SQUARED_HINGE, SQUARE };

enum {
    PAIRS = 8,  /* of L-BFGS */
    CHUNK = 32, /* points whose outer products are summed while they lie in the first cache */
    SPARE = 16, /* floats after a row of operands, for tiles that end beyond it */
    ROWS = 6,   /* of a tile of the Hessian: so many sums and operands are what registers hold */
#if BYTES == 64
    BLOCKS = 4,
#else
    BLOCKS = 2,
#endif
};

typedef struct {
    int64_t points, size, width; /* size = features + 1; width: widened with zeros */
    int64_t loss;
    double C, widest;            /* widest: the largest of `norm` */
    const double *design;        /* [points, width]: [x, 1] */
    const float *scaled;         /* [points, width]: design times unit */
    const double *unit;          /* [width]: what makes columns alike in size */
    const double *norm;          /* [width]: length of each column */
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
    double blur;            /* what float32 may have left out of the gradient, by columns' norms */
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
    work->memory = workspace_for(parts, sizeof parts / sizeof *parts);
    if (work->memory == NULL) return 0;
    set_penalty(pool, work->bare);
    memcpy(work->hessian, work->bare, matrix_bytes(pool)); /* for the rows that only widen */
    return 1;
}

#endif
