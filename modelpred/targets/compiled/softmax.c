/* Newton's method for softmax regression, subset after subset, each on its own points.

       F(theta) = 1/2 |coefficients|^2 + sum_i c_i (logsumexp(m_i) - m_i,y_i),   c_i = C w_i

   A Newton system is solved by conjugate gradients in float32; gradients are float64, so that the end
   point is float64's. What makes it cheap:

   - Coordinates that nearly diagonalise every subset's Hessian (`turned`). In each direction alone the
     classes bend each other, and most where two are confused: a block of classes x classes for each
     direction is the preconditioner, half of the products that the diagonal needs.
   - What the system before has told of the Hessian improves it further (Morales and Nocedal,
     "Automatic preconditioning by limited memory quasi-Newton updating", 2000).
   - Points that the model is sure of bend next to nothing: a system leaves out those that together
     hold less of the curvature than its residual asks for.
   - What is gathered of a subset lies in a core's second cache, and a block of its points in the
     first, while a product passes over it forwards and backwards.

   F is convex along a line: a step that overshoots, by the slope at its end, is halved.

   A subset that does not get there is left to the caller: `reached` says so. The answer to a subset
   depends on nothing but the subset. */

#include <float.h>
#include <math.h>

#include "softmax_gradient.h"
#include "softmax_hessian.h"
#include "softmax_workspace.h"
#include "vectors.h"

enum {
    MOST_STEPS = 60,
    MOST_LINE = 20,
    MOST_PRODUCTS = 400, /* of one system */
    PATIENCE = 3,        /* stalled steps within the tolerance that end at rounding's floor */
};

#define FINISHED 1e-3 /* share of the tolerance at which a further step ends a subset */
#define SURE 1e-2     /* share of the tolerance below which a subset has got there */
#define BOUND 0.1     /* the same for the gradient's length */
#define SMALL 1e-3    /* a parameter's least scale, relative to what cancels in it */
#define STALLED 0.5   /* share of its norm that a step may leave before it counts as stalled */
#define OVERSHOT 0.5  /* slope at a step's end / at its beginning, beyond which it is shortened */
#define LOOSE 0.1     /* relative residual of a Newton system: early ... */
#define TIGHT 1e-3    /* ... and late */
#define FLAT 0.03     /* share of all curvature that a system may leave out / its residual */
#define SETTLED 0.1   /* gradient norm after a step / before, below which its factor serves again */
#define DAMPING 1e-3  /* of a free intercept, times the gradient norm so that it fades */

/* Gathers the points that bend the objective, without those that together make up less than a share
   of all curvature. */
static void gather_bent(const Pool *pool, Workspace *workspace, double share) {
    int64_t width = pool->width, padded = workspace->padded;
    /* Sums by powers of two are as good as an order of the points. */
    double sums[256] = {0}, all = 0, left;
    for (int64_t p = 0; p < workspace->count; p++) {
        uint32_t bits;
        memcpy(&bits, workspace->curvature + p, 4);
        sums[bits >> 23 & 255] += workspace->curvature[p];
        all += workspace->curvature[p];
    }
    uint32_t least = 0;
    for (left = share * all; least < 255 && sums[least] <= left; least++) left -= sums[least];
    workspace->bent = 0;
    for (int64_t p = 0; p < workspace->count; p++) {
        uint32_t bits;
        memcpy(&bits, workspace->curvature + p, 4);
        workspace->bends[workspace->bent] = p;
        workspace->bent += (bits >> 23 & 255) >= least;
    }
    workspace->wide = (workspace->bent + FLOATS - 1) / FLOATS * FLOATS;
    for (int64_t q = 0; q < workspace->wide; q++) {
        int there = q < workspace->bent;
        int64_t p = there ? workspace->bends[q] : 0, i = workspace->place[p];
        memcpy(workspace->rows + q * width, pool->turned + i * width, width * 4);
        workspace->bends[q] = i;
        for (int64_t k = 0; k < pool->classes; k++) {
            workspace->near[k * workspace->wide + q] = workspace->chance[k * padded + p];
            workspace->weighted[k * workspace->wide + q] = there ? workspace->scaled[k * padded + p] : 0;
        }
    }
    for (int64_t j = 0; j < pool->size; j++) {
        const float *from = pool->columns + j * pool->points;
        float *to = workspace->columns + j * workspace->wide;
        for (int64_t q = 0; q < workspace->wide; q++) to[q] = from[workspace->bends[q]];
    }
}

/* direction = -H^-1 gradient to a relative residual. */
static void direct(const Pool *pool, Workspace *workspace, double norm, double residual, int anew) {
    int64_t all = workspace->all, width = pool->width, learned = 0, stride = 1;
    turn(pool, pool->turn, workspace->gradient, workspace->direction);
    double length = 1e-300, damping = DAMPING * (norm < 1 ? norm : 1);
    for (int64_t j = 0; j < all; j++)
        length = fabs(workspace->direction[j]) > length ? fabs(workspace->direction[j]) : length;
    gather_bent(pool, workspace, FLAT * residual);
    if (anew) factorise(pool, workspace, damping);
    for (int64_t j = 0; j < all; j++) workspace->remaining[j] = (float)(-workspace->direction[j] / length);
    memset(workspace->solution, 0, all * 4);
    precondition(pool, workspace);
    memcpy(workspace->search, workspace->scaled_rest, all * 4);
    float energy = inner(workspace, workspace->remaining, workspace->search);
    float goal = energy * (float)(residual * residual);
    for (int64_t used = 0; used < MOST_PRODUCTS; used++) {
        multiply(pool, workspace);
        for (int64_t k = 0; k < pool->classes; k++) {
            float *product = workspace->product + k * width, *search = workspace->search + k * width;
            for (int64_t j = 0; j < pool->size - 1; j++)
                product[j] += (float)pool->penalty[j] * search[j];
            product[pool->size - 1] += (float)damping * search[pool->size - 1];
        }
        float curved = inner(workspace, workspace->search, workspace->product);
        if (!(curved > 1e-30f)) break;
        if (used % stride == 0) {
            if (learned == PAIRS) { /* every other one, so that they come from all of the system */
                for (learned = 0; learned < PAIRS / 2; learned++) {
                    float *swap = workspace->fresh[learned];
                    workspace->fresh[learned] = workspace->fresh[2 * learned];
                    workspace->fresh[2 * learned] = swap;
                    workspace->new_curved[learned] = workspace->new_curved[2 * learned];
                }
                stride *= 2;
            }
            if (used % stride == 0) {
                memcpy(workspace->fresh[learned], workspace->search, all * 4);
                memcpy(workspace->fresh[learned] + all, workspace->product, all * 4);
                workspace->new_curved[learned++] = curved;
            }
        }
        float ratio = energy / curved;
        add(workspace, workspace->solution, ratio, workspace->search);
        add(workspace, workspace->remaining, -ratio, workspace->product);
        precondition(pool, workspace);
        float following = inner(workspace, workspace->remaining, workspace->scaled_rest);
        if (!(following > goal)) break;
        vf share = vf_all(following / energy);
        for (int64_t j = 0; j < all; j += FLOATS)
            vf_store(workspace->search + j,
                     share * vf_load(workspace->search + j) + vf_load(workspace->scaled_rest + j));
        energy = following;
    }
    learn(workspace, learned);
    for (int64_t j = 0; j < all; j++) workspace->other[j] = workspace->solution[j] * length;
    turn(pool, pool->back, workspace->other, workspace->direction);
}

static double dot(const Workspace *workspace, const double *first, const double *second) {
    vd sum = {0};
    for (int64_t j = 0; j < workspace->all; j += DOUBLES) sum += vd_load(first + j) * vd_load(second + j);
    return vd_sum(sum);
}

static void gather(const Pool *pool, Workspace *workspace, const double *weights) {
    workspace->count = 0;
    for (int64_t i = 0; i < pool->points; i++) {
        workspace->place[workspace->count] = i;
        workspace->factor[workspace->count] = pool->C * weights[i];
        workspace->count += weights[i] != 0;
    }
    workspace->padded = (workspace->count + FLOATS - 1) / FLOATS * FLOATS;
    for (int64_t p = 0; p < workspace->padded; p++) {
        if (p >= workspace->count) workspace->place[p] = 0, workspace->factor[p] = 0;
        int64_t i = workspace->place[p];
        workspace->label[p] = pool->labels[i];
    }
}

/* Parameters without their mean over the classes: intercepts' changes no chance, and coefficients' is
   zero at the optimum. */
static void level(const Pool *pool, double *theta) {
    int64_t width = pool->width;
    for (int64_t j = 0; j < width; j++) {
        double mean = 0;
        for (int64_t k = 0; k < pool->classes; k++) mean += theta[k * width + j];
        mean /= (double)pool->classes;
        for (int64_t k = 0; k < pool->classes; k++) theta[k * width + j] -= mean;
    }
}

/* Squared lengths of coefficients, of coefficients times their columns' lengths, and of intercepts. */
typedef struct {
    double plain, scaled, intercepts;
} Squares;

static Squares squares_of(const Pool *pool, const double *theta) {
    int64_t last = pool->size - 1, width = pool->width;
    Squares sums = {0};
    double mean = 0;
    for (int64_t k = 0; k < pool->classes; k++) mean += theta[k * width + last];
    mean /= (double)pool->classes;
    for (int64_t k = 0; k < pool->classes; k++) {
        const double *own = theta + k * width;
        for (int64_t j = 0; j < last; j++) {
            sums.plain += own[j] * own[j];
            sums.scaled += own[j] * pool->norm[j] * (own[j] * pool->norm[j]);
        }
        sums.intercepts += (own[last] - mean) * (own[last] - mean);
    }
    return sums;
}

/* Length of what the points' terms of the gradient are, and are rounded from. */
static double terms_of(const Pool *pool, const Workspace *workspace) {
    double reach = 0, curvature = 0;
    for (int64_t k = 0; k < pool->classes; k++) {
        double sum = 0;
        for (int64_t j = 0; j < pool->size; j++)
            sum += fabs(workspace->theta[k * pool->width + j]) * pool->norm[j];
        reach = sum > reach ? sum : reach;
    }
    for (int64_t p = 0; p < workspace->count; p++)
        curvature += (double)workspace->curvature[p] * workspace->curvature[p];
    return sqrt(workspace->slope_squares) + reach * sqrt(curvature / (double)pool->points);
}

/* The root of move / size, where size is at least `least`; nothing moves 0 by 0, and no number tells
   how far something of a size beyond all floats is moved. */
static double share_of(double move, double size, double least) {
    double own = size > least ? size : least;
    return (move == 0 ? 0 : sqrt(move / own)) + 0 * own;
}

/* How far a step moves the parameters, relative to their size: the largest of three, coefficients'
   move over coefficients, the same where each counts times its column's length, and intercepts'
   move over all parameters. `own` becomes the coefficients' size. */
static double relative(const Pool *pool, const Workspace *workspace, const double *step, double *own) {
    Squares size = squares_of(pool, workspace->theta), move = squares_of(pool, step), least = {0};
    double bent = 0, terms = terms_of(pool, workspace);
    for (int64_t p = 0; p < workspace->count; p++) bent += workspace->curvature[p];
    bent /= (double)pool->points * (double)pool->classes;
    for (int64_t j = 0; j < pool->size; j++) {
        double norm = pool->norm[j], diagonal = pool->penalty[j] + bent * norm * norm;
        /* What the parameters would be if all terms of their gradients had one sign, times SMALL. */
        double cancelled = SMALL * terms * norm / (diagonal > 0 ? diagonal : 1);
        if (j == pool->size - 1) {
            least.intercepts = cancelled * cancelled;
            continue;
        }
        least.plain += cancelled * cancelled;
        least.scaled += cancelled * norm * (cancelled * norm);
    }
    double first = share_of(move.plain, size.plain, least.plain);
    double second = share_of(move.scaled, size.scaled, least.scaled);
    double third = share_of(move.intercepts, size.plain + size.intercepts, least.intercepts);
    double most = first > second ? first : second;
    *own = sqrt(size.plain > least.plain ? size.plain : least.plain);
    /* What is no number stays one. */
    return most > third ? most : third + 0 * most;
}

/* Whether the optimum is within the tolerance, relative to the parameters: by a step of the
   preconditioner alone for the gradient, each entry enlarged by what rounding may have left out of it.
   The penalty is curvature 1 everywhere, so the length of the gradient bounds the coefficients' way
   where the preconditioner has more curvature than there is. */
static int arrived(const Pool *pool, Workspace *workspace, double tolerance) {
    int64_t width = pool->width;
    double length = 1e-300, factors = 0;
    for (int64_t p = 0; p < workspace->count; p++) factors += workspace->factor[p] * workspace->factor[p];
    /* A slope that is a chance less one has the rounding of one. */
    double rounded = DBL_EPSILON * (terms_of(pool, workspace) + sqrt(factors));
    for (int64_t k = 0; k < pool->classes; k++)
        for (int64_t j = 0; j < width; j++) {
            double entry = workspace->gradient[k * width + j];
            double penalised = pool->penalty[j] * fabs(workspace->theta[k * width + j]);
            workspace->other[k * width + j] =
                entry + copysign(rounded * pool->norm[j] + DBL_EPSILON * penalised, entry);
        }
    level(pool, workspace->other);
    turn(pool, pool->turn, workspace->other, workspace->direction);
    for (int64_t j = 0; j < workspace->all; j++)
        length = fabs(workspace->direction[j]) > length ? fabs(workspace->direction[j]) : length;
    for (int64_t j = 0; j < workspace->all; j++)
        workspace->remaining[j] = (float)(workspace->direction[j] / length);
    double size, square = 0;
    for (int64_t k = 0; k < pool->classes; k++)
        for (int64_t j = 0; j < pool->size - 1; j++)
            square += workspace->direction[k * width + j] * workspace->direction[k * width + j];
    precondition(pool, workspace);
    for (int64_t j = 0; j < workspace->all; j++) workspace->other[j] = workspace->scaled_rest[j] * length;
    turn(pool, pool->back, workspace->other, workspace->direction);
    if (!(relative(pool, workspace, workspace->direction, &size) <= SURE * tolerance)) return 0;
    return sqrt(square) <= BOUND * tolerance * size;
}

/* 1 if the subset's parameters are within the tolerance of its optimum, relative to their size. */
static int train(const Pool *pool, Workspace *workspace, const double *weights, const double *start,
                 double tolerance, double *final_norm, int64_t *taken) {
    int64_t width = pool->width;
    gather(pool, workspace, weights);
    workspace->knows = 0;
    memcpy(workspace->theta, pool->start, workspace->all * 8);
    for (int64_t k = 0; start != NULL && k < pool->classes; k++)
        memcpy(workspace->theta + k * width, start + k * pool->size, pool->size * 8);
    double goal = 0, norm = evaluate(pool, workspace, workspace->theta, workspace->gradient);
    double residual = LOOSE, rate = 1;
    int stalls = 0, reached = 0;
    for (*taken = 0; !reached && norm > 0 && *taken < MOST_STEPS; ++*taken) {
        double finish = 0.3 * goal / norm;
        direct(pool, workspace, norm, finish > residual ? finish : residual, rate > SETTLED);
        double slope = dot(workspace, workspace->gradient, workspace->direction), length = 1, next;
        if (!(slope < 0)) break;
        double size, far = relative(pool, workspace, workspace->direction, &size);
        goal = norm * FINISHED * tolerance / far; /* the gradient from where it is near enough */
        if (norm <= goal) break;
        int within = far <= tolerance;
        for (int attempt = 0;; attempt++) {
            for (int64_t j = 0; j < workspace->all; j++)
                workspace->trial[j] = workspace->theta[j] + length * workspace->direction[j];
            next = evaluate(pool, workspace, workspace->trial, workspace->other);
            if (within || attempt == MOST_LINE) break;
            if (dot(workspace, workspace->other, workspace->direction) <= -OVERSHOT * slope) break;
            length /= 2;
        }
        memcpy(workspace->theta, workspace->trial, workspace->all * 8);
        memcpy(workspace->gradient, workspace->other, workspace->all * 8);
        rate = next / norm;
        stalls = within && rate > STALLED ? stalls + 1 : 0;
        residual = rate * rate < TIGHT ? TIGHT : rate * rate > LOOSE ? LOOSE : rate * rate;
        norm = next;
        if (stalls == PATIENCE) break;
        reached = norm <= goal && arrived(pool, workspace, tolerance);
    }
    reached = reached || arrived(pool, workspace, tolerance);
    level(pool, workspace->theta);
    *final_norm = norm;
    return reached;
}

/* The rows of parameters [subsets, classes, size] for weights [subsets, points] from their own
   starts, or from the pool's where `starts` is NULL; which of them got there. -1 without memory. */
int modelpred_softmax(const Pool *pool, int64_t subsets, const double *weights, const double *starts,
                      double tolerance, double *parameters, double *norms, double *objectives,
                      int64_t *steps, uint8_t *reached) {
    Workspace workspace;
    int64_t size = pool->classes * pool->size;
    if (!begin(&workspace, pool)) return -1;
    for (int64_t row = 0; row < subsets; row++) {
        const double *own = starts == NULL ? NULL : starts + row * size;
        reached[row] = (uint8_t)train(pool, &workspace, weights + row * pool->points, own, tolerance,
                                      norms + row, steps + row);
        for (int64_t k = 0; k < pool->classes; k++)
            memcpy(parameters + row * size + k * pool->size, workspace.theta + k * pool->width,
                   pool->size * 8);
        objectives[row] = objective_of(pool, &workspace);
    }
    free(workspace.memory);
    return 0;
}
