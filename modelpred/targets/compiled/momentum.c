/* Full-batch momentum of a one-hidden-layer network, subset after subset, each on its own points.

       hidden = tanh(W1 [x, 1])     scores = W2 [hidden, 1]     loss: cross-entropy, weighted mean
       velocity <- momentum velocity - rate (gradient + decay theta)     theta <- theta + velocity

   theta is float64 and holds each hidden unit's [coefficients, intercept], then each class's.
   Gradients are float32. A step goes through the points in blocks of a few vectors, forwards and
   backwards, so that all that a block needs lies in the first cache; what is gathered of a subset
   lies in the second. The lanes of a vector are points going forwards and features going back. The
   answer to a subset depends on nothing but the subset. */

#include "counted.h"
#include "workspace.h"
#include "tiles.h"
#include "vectors.h"

enum {
#if BYTES == 64
    UNITS = 8, /* of a tile forwards: 8 x 3 sums and 3 operands are what registers hold */
#else
    UNITS = 4,
#endif
    UP = 4, /* units of a tile backwards */
};

typedef struct {
    int64_t points, features, width;    /* width: features widened to a whole vector of 16 */
    int64_t hidden, classes, steps;
    double rate, momentum, decay;
    const float *design;                /* [points, width] */
    const int32_t *labels;              /* [points] */
} Network;

typedef struct {
    int64_t count, padded, size;         /* points, padded to vectors; parameters */
    int64_t *place;
    int32_t *label;                      /* [padded] */
    float *share;                        /* w / sum of w */
    float *rows, *columns;               /* [padded, width] and [features, padded] */
    double *theta, *velocity;            /* [size] */
    float *rounded, *slopes;             /* [size] */
    float *lower;                        /* [hidden, width]: slopes of coefficients */
    vf *sums;                            /* slopes of which lanes are still to be summed */
    float *units, *inner, *output;       /* [hidden or classes, BLOCK] */
    void *memory;
} Workspace;

static int64_t size_of(const Network *net) {
    return net->hidden * (net->features + 1) + net->classes * (net->hidden + 1);
}

/* Sums over lanes: intercepts of hidden units, then each class's [hidden, 1]. */
static int64_t sums_of(const Network *net) { return net->hidden + net->classes * (net->hidden + 1); }

static int begin(Workspace *workspace, const Network *net) {
    size_t most = (net->points + FLOATS) / FLOATS * FLOATS, size = workspace->size = size_of(net);
    size_t layer = (net->hidden + UP) * BLOCK * 4;
    Part parts[] = {
        {&workspace->place, most * 8},   {&workspace->label, most * 4},    {&workspace->share, most * 4},
        {&workspace->theta, size * 8},   {&workspace->velocity, size * 8}, {&workspace->rounded, size * 4},
        {&workspace->slopes, size * 4},  {&workspace->units, layer},       {&workspace->inner, layer},
        {&workspace->rows, most * net->width * 4},
        {&workspace->columns, most * net->features * 4},
        {&workspace->lower, (net->hidden + UP) * net->width * 4},
        {&workspace->sums, (sums_of(net) + FLOATS) * BYTES},
        {&workspace->output, net->classes * BLOCK * 4},
    };
    workspace->memory = workspace_for(parts, sizeof parts / sizeof *parts);
    return workspace->memory != NULL;
}

INLINE vf vf_tanh(vf x) {
    vf size = (vf)((vi)x & INT32_MAX), e = vf_exp(-2 * size), value = (1 - e) / (1 + e);
    return (vf)((vi)value | ((vi)x & INT32_MIN));
}

/* units = tanh(W1 [x, 1]) of `tall` hidden units from `top`. */
INLINE void forwards(const Network *net, const Workspace *workspace, int64_t first, int64_t top, int tall,
                     int vectors) {
    vf sums[UNITS][VECTORS];
    int64_t stride = net->features + 1;
    const float *weights = workspace->rounded + top * stride;
    for (int u = 0; u < tall; u++)
        for (int v = 0; v < vectors; v++) sums[u][v] = vf_all(weights[u * stride + net->features]);
    add_scores(sums, weights, stride, workspace->columns + first, workspace->padded, net->features, tall, vectors);
    for (int u = 0; u < tall; u++)
        for (int v = 0; v < vectors; v++)
            vf_store(workspace->units + (top + u) * BLOCK + v * FLOATS, vf_tanh(sums[u][v]));
}

/* output = (softmax of the scores - one_hot(y)) share. */
INLINE void outputs(const Network *net, const Workspace *workspace, int64_t first, int vectors) {
    const float *upper = workspace->rounded + net->hidden * (net->features + 1);
    int64_t stride = net->hidden + 1;
    vf highest[VECTORS], total[VECTORS];
    for (int64_t k = 0; k < net->classes; k++) {
        vf scores[VECTORS];
        for (int v = 0; v < vectors; v++) scores[v] = vf_all(upper[k * stride + net->hidden]);
        for (int64_t h = 0; h < net->hidden; h++)
            for (int v = 0; v < vectors; v++)
                scores[v] += upper[k * stride + h] * vf_load(workspace->units + h * BLOCK + v * FLOATS);
        for (int v = 0; v < vectors; v++) {
            vf_store(workspace->output + k * BLOCK + v * FLOATS, scores[v]);
            highest[v] = k == 0 ? scores[v] : vf_max(scores[v], highest[v]);
        }
    }
    for (int v = 0; v < vectors; v++) total[v] = (vf){0};
    for (int64_t k = 0; k < net->classes; k++)
        for (int v = 0; v < vectors; v++) {
            float *at = workspace->output + k * BLOCK + v * FLOATS;
            vf chance = vf_exp(vf_load(at) - highest[v]);
            vf_store(at, chance);
            total[v] += chance;
        }
    for (int v = 0; v < vectors; v++) {
        vf share = vf_load(workspace->share + first + v * FLOATS), scale = share / total[v];
        vi label = *(const vi *)(workspace->label + first + v * FLOATS);
        for (int64_t k = 0; k < net->classes; k++) {
            float *at = workspace->output + k * BLOCK + v * FLOATS;
            vf own = vf_where(label == (int32_t)k, share, (vf){0});
            vf_store(at, vf_load(at) * scale - own);
        }
    }
}

/* inner = (W2' output) (1 - units^2), and the sums over points that need no features. */
INLINE void backwards(const Network *net, const Workspace *workspace, int vectors) {
    const float *upper = workspace->rounded + net->hidden * (net->features + 1);
    int64_t stride = net->hidden + 1;
    vf *sums = workspace->sums + net->hidden;
    for (int64_t k = 0; k < net->classes; k++)
        for (int v = 0; v < vectors; v++)
            sums[k * stride + net->hidden] += vf_load(workspace->output + k * BLOCK + v * FLOATS);
    for (int64_t h = 0; h < net->hidden; h++) {
        vf unit[VECTORS], down[VECTORS], total = {0};
        for (int v = 0; v < vectors; v++) {
            unit[v] = vf_load(workspace->units + h * BLOCK + v * FLOATS);
            down[v] = (vf){0};
        }
        for (int64_t k = 0; k < net->classes; k++) {
            vf product = sums[k * stride + h];
            for (int v = 0; v < vectors; v++) {
                vf output = vf_load(workspace->output + k * BLOCK + v * FLOATS);
                down[v] += upper[k * stride + h] * output;
                product += output * unit[v];
            }
            sums[k * stride + h] = product;
        }
        for (int v = 0; v < vectors; v++) {
            vf slope = down[v] * (1 - unit[v] * unit[v]);
            vf_store(workspace->inner + h * BLOCK + v * FLOATS, slope);
            total += slope;
        }
        workspace->sums[h] += total;
    }
}

INLINE void block(const Network *net, const Workspace *workspace, int64_t first, int vectors) {
    int64_t top = 0;
    for (; top + UNITS <= net->hidden; top += UNITS) forwards(net, workspace, first, top, UNITS, vectors);
    for (; top + 2 <= net->hidden; top += 2) forwards(net, workspace, first, top, 2, vectors);
    for (; top < net->hidden; top++) forwards(net, workspace, first, top, 1, vectors);
    outputs(net, workspace, first, vectors);
    backwards(net, workspace, vectors);
    int64_t points = workspace->count - first < vectors * FLOATS ? workspace->count - first : vectors * FLOATS;
    for (top = 0; top < net->hidden; top += UP)
        add_products(workspace->lower + top * net->width, workspace->inner + top * BLOCK,
                     workspace->rows + first * net->width, net->width, points, UP);
}

/* The data term's gradient at `rounded`, into `slopes`. */
static void gradient(const Network *net, const Workspace *workspace) {
    int64_t first = 0, hidden = net->hidden, features = net->features, sums = sums_of(net);
    count_floats(workspace->count * (4.0 * hidden * (features + 1) + 6.0 * net->classes * (hidden + 1)));
    memset(workspace->lower, 0, hidden * net->width * 4);
    memset(workspace->sums, 0, sums * BYTES);
    for (; first + BLOCK <= workspace->padded; first += BLOCK) block(net, workspace, first, VECTORS);
    if (workspace->padded - first == 2 * FLOATS) block(net, workspace, first, 2);
    if (workspace->padded - first == FLOATS) block(net, workspace, first, 1);
    for (int64_t h = 0; h < hidden; h++)
        memcpy(workspace->slopes + h * (features + 1), workspace->lower + h * net->width, features * 4);
    for (int64_t k = 0; k < sums; k += FLOATS) {
        vf found = vf_sums(workspace->sums + k);
        for (int64_t lane = 0; lane < FLOATS && k + lane < sums; lane++) {
            int64_t at = k + lane;
            int64_t place = at < hidden ? at * (features + 1) + features : at + hidden * features;
            workspace->slopes[place] = found[lane];
        }
    }
}

static void update(const Network *net, const Workspace *workspace) {
    int64_t lower = net->hidden * (net->features + 1);
    for (int64_t layer = 0; layer < 2; layer++) {
        int64_t inputs = layer == 0 ? net->features : net->hidden;
        int64_t at = layer == 0 ? 0 : lower, end = layer == 0 ? lower : workspace->size;
        for (; at < end; at += inputs + 1) {
            double *theta = workspace->theta + at, *velocity = workspace->velocity + at;
            const float *slope = workspace->slopes + at;
            float *rounded = workspace->rounded + at;
            for (int64_t j = 0; j <= inputs; j++) {
                double decay = j < inputs ? net->decay : 0;
                velocity[j] = net->momentum * velocity[j] - net->rate * (slope[j] + decay * theta[j]);
                theta[j] += velocity[j];
                rounded[j] = (float)theta[j];
            }
        }
    }
}

static void gather(const Network *net, Workspace *workspace, const double *weights) {
    double total = 0;
    workspace->count = 0;
    for (int64_t i = 0; i < net->points; i++) {
        workspace->place[workspace->count] = i;
        workspace->count += weights[i] != 0;
        total += weights[i];
    }
    workspace->padded = (workspace->count + FLOATS - 1) / FLOATS * FLOATS;
    for (int64_t p = 0; p < workspace->padded; p++) {
        int there = p < workspace->count;
        int64_t i = there ? workspace->place[p] : 0;
        workspace->label[p] = net->labels[i];
        workspace->share[p] = there ? (float)(weights[i] / total) : 0;
        memcpy(workspace->rows + p * net->width, net->design + i * net->width, net->width * 4);
        for (int64_t d = 0; d < net->features; d++)
            workspace->columns[d * workspace->padded + p] = net->design[i * net->width + d];
    }
}

/* Trained parameters [subsets, size] for weights [subsets, points] from starts [subsets, size].
   -1 if there is no memory. */
int modelpred_momentum(const Network *net, int64_t subsets, const double *weights,
                       const double *starts, double *parameters) {
    Workspace workspace;
    if (!begin(&workspace, net)) return -1;
    for (int64_t row = 0; row < subsets; row++) {
        gather(net, &workspace, weights + row * net->points);
        memcpy(workspace.theta, starts + row * workspace.size, workspace.size * 8);
        memset(workspace.velocity, 0, workspace.size * 8);
        for (int64_t j = 0; j < workspace.size; j++) workspace.rounded[j] = (float)workspace.theta[j];
        for (int64_t step = 0; workspace.count > 0 && step < net->steps; step++) {
            gradient(net, &workspace);
            update(net, &workspace);
        }
        memcpy(parameters + row * workspace.size, workspace.theta, workspace.size * 8);
    }
    free(workspace.memory);
    return 0;
}
