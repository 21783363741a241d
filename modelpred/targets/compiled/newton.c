/* Newton's method for one linear model with one score a point, subset after subset.

       F(theta) = 1/2 sum_j penalty_j theta_j^2 + sum_i c_i loss(a_i' theta, y_i),   c_i = C w_i

   One subset's points, a few hundred rows, lie in a core's second cache and its Hessian in the
   first, so that a step costs what its arithmetic costs. Gradients are float64; the Hessian is
   made and factored in float32, which is iterative refinement and ends at float64's answer.

   - The Hessian at the shared start is the whole pool's less the points that are absent, or the
     sum over those that are present, whichever are fewer.
   - A smooth loss keeps its factor for several steps, which are corrected by what the gradients
     since then have told of the curvature (L-BFGS), and makes a new one when that is cheaper than
     the steps that it would save. For the squared hinge the factor is always the current one: the
     points that have crossed their margin are added or taken away.
   - F is convex along a line: a step that overshoots, by the slope at its end, is shortened.

   A subset that does not get there (a Hessian that float32 cannot factor, too many steps) is left
   to the caller: `reached` says so. The answer to a subset depends on nothing but the subset. */

#include <float.h>
#include <math.h>

#include "counted.h"
#include "newton_hessian.h"
#include "newton_passes.h"
#include "newton_workspace.h"
#include "vectors.h"

enum {
    MOST_STEPS = 80,
    MOST_LINE = 20,
    PATIENCE = 3, /* stalled steps within the tolerance that end a subset at rounding's floor */
};

#define FINISHED 1e-4   /* share of the tolerance at which a further step ends a subset */
#define SURE 1e-2       /* share of the tolerance below which a subset has got there */
#define BOUND 0.1       /* the same for a gradient's length, where the factor may be of elsewhere */
#define SMALL 1e-3      /* a parameter's least scale, relative to what cancels in it */
#define STALLED 0.5     /* share of its norm that a step may leave before it counts as stalled */
#define OVERSHOT 0.5    /* slope at a step's end / at its beginning, beyond which it is shortened */
#define HINGE_SLOPE 0.1 /* the same where evaluating a slope costs next to nothing */
#define FINE 1e5        /* gradient norm / goal, from which what float32 rounds is below the goal */
#define BLURRED 0.05      /* how many goals float32 may blur a gradient by */

static double dot(const Pool *pool, const double *first, const double *second) {
    vd sum = {0};
    for (int64_t j = 0; j < pool->width; j += DOUBLES) sum += vd_load(first + j) * vd_load(second + j);
    return vd_sum(sum);
}

/* to += factor * from. */
static void add(const Pool *pool, double *to, double factor, const double *from) {
    for (int64_t j = 0; j < pool->width; j += DOUBLES)
        vd_store(to + j, vd_load(to + j) + factor * vd_load(from + j));
}

/* direction = -H^-1 gradient, with H corrected by the pairs (Nocedal and Wright, algorithm 7.4). */
static void direct(const Pool *pool, Work *work) {
    int64_t width = pool->width, kept = work->pairs < PAIRS ? work->pairs : PAIRS;
    for (int64_t j = 0; j < width; j++) work->direction[j] = -work->gradient[j];
    for (int64_t age = 0; age < kept; age++) {
        int64_t k = (work->pairs - 1 - age) % PAIRS;
        work->share[k] = dot(pool, work->steps + k * width, work->direction) / work->inner[k];
        add(pool, work->direction, -work->share[k], work->changes + k * width);
    }
    solve(pool, work, work->direction);
    for (int64_t age = kept - 1; age >= 0; age--) {
        int64_t k = (work->pairs - 1 - age) % PAIRS;
        double other = dot(pool, work->changes + k * width, work->direction) / work->inner[k];
        add(pool, work->direction, work->share[k] - other, work->steps + k * width);
    }
}

/* What the last step tells of the curvature, kept for `direct`. */
static void remember(const Pool *pool, Work *work, double length) {
    int64_t width = pool->width, k = work->pairs % PAIRS;
    double *step = work->steps + k * width, *change = work->changes + k * width;
    for (int64_t j = 0; j < width; j++) {
        step[j] = length * work->direction[j];
        change[j] = work->gradient[j] - work->before[j];
    }
    work->inner[k] = dot(pool, step, change);
    /* Convexity makes it positive; at the floor of rounding it may be anything. */
    if (work->inner[k] > 1e-6 * dot(pool, step, step) * DBL_EPSILON) work->pairs++;
}

static double length_of(const double *vector, int64_t count) {
    vd sum = {0};
    for (int64_t i = 0; i < count; i += DOUBLES) sum += vd_load(vector + i) * vd_load(vector + i);
    return sqrt(vd_sum(sum));
}

/* How far scores reach that are summed from typical points. */
static double reach_of(const Pool *pool, const Work *work) {
    double reach = 0;
    for (int64_t j = 0; j < pool->size; j++) reach += fabs(work->theta[j]) / pool->unit[j];
    return reach;
}

/* Length of what the points' terms of the gradient are, and are rounded from. */
static double terms_of(const Pool *pool, const Work *work) {
    return length_of(work->slope, work->padded) +
           reach_of(pool, work) * length_of(work->curvature, work->padded);
}

/* move / size, where size is at least `least`; nothing moves 0 by 0, and no number tells how far
   something of a size beyond all floats is moved. */
static double share_of(double move, double size, double least) {
    double own = size > least ? size : least;
    return (move == 0 ? 0 : move / own) + 0 * own;
}

/* What a parameter would be if all terms of its gradient had one sign, times SMALL. */
INLINE double least_of(const Pool *pool, const Work *work, int64_t j, double terms) {
    double unit = pool->unit[j];
    return SMALL * terms * pool->norm[j] * unit * unit / work->hessian[j * (pool->width + 1)];
}

/* How far a step moves the parameters, relative to their size: the largest of three, coefficients'
   move over coefficients, the same where each counts times its column's length, and the intercept's
   move over all parameters. `size` becomes the coefficients'. */
static double relative(const Pool *pool, const Work *work, const double *step, double *size) {
    int64_t last = pool->size - 1;
    double plain[3] = {0}, scaled[3] = {0}, terms = terms_of(pool, work);
    for (int64_t j = 0; j < last; j++) {
        double norm = pool->norm[j];
        double entries[] = {step[j], work->theta[j], least_of(pool, work, j, terms)};
        for (int k = 0; k < 3; k++) {
            plain[k] += entries[k] * entries[k];
            scaled[k] += entries[k] * norm * (entries[k] * norm);
        }
    }
    double whole = sqrt(plain[1] + work->theta[last] * work->theta[last]);
    double first = share_of(sqrt(plain[0]), sqrt(plain[1]), sqrt(plain[2]));
    double second = share_of(sqrt(scaled[0]), sqrt(scaled[1]), sqrt(scaled[2]));
    double third = share_of(fabs(step[last]), whole, least_of(pool, work, last, terms));
    double most = first > second ? first : second;
    *size = sqrt(plain[1] > plain[2] ? plain[1] : plain[2]);
    /* What is no number stays one. */
    return most > third ? most : third + 0 * most;
}

/* Whether the optimum is within the tolerance, relative to the parameters: by a Newton step for the
   gradient, each entry enlarged by what rounding may have left out of it. A factor of elsewhere, or on
   the other side of a margin, may be of much larger curvatures, but the penalty is curvature 1
   everywhere, so the length of the gradient at the best intercept bounds the coefficients' way. */
static int arrived(const Pool *pool, const Work *work, double *step, double tolerance) {
    int64_t last = pool->size - 1;
    double columns = 0, length = 0, size = 0;
    double rounded = work->blur + DBL_EPSILON * terms_of(pool, work);
    for (int64_t j = 0; j < pool->width; j++) {
        double entry = work->gradient[j], penalised = pool->penalty[j] * fabs(work->theta[j]);
        step[j] = entry + copysign(rounded * pool->norm[j] + DBL_EPSILON * penalised, entry);
    }
    for (int64_t j = 0; j < last; j++) {
        columns += pool->norm[j] * pool->norm[j];
        length += step[j] * step[j];
    }
    length = sqrt(length) + sqrt(columns / (double)pool->points) * fabs(step[last]);
    solve(pool, work, step);
    if (!(relative(pool, work, step, &size) <= SURE * tolerance)) return 0;
    return pool->loss == SQUARE || length <= BOUND * tolerance * size;
}

/* By how much a short step's rounding may blur the gradient, relative to columns' norms. Columns far
   from zero cancel each other in a score, and then that is much. */
static double blur_of(const Pool *pool, const Work *work) {
    double length = 0;
    for (int64_t j = 0; j < pool->size; j++) length += fabs(work->direction[j]) / pool->unit[j];
    return FLT_EPSILON * length * length_of(work->curvature, work->padded);
}

/* Goes along the direction, shorter if the whole step overshoots, and leaves slopes, curvatures and
   `data` of there; how far. */
static double advance(const Pool *pool, Work *work, double slope, int exempt, int fine) {
    double linear = 0, square = 0, length = 1, low = 0, high = INFINITY, second;
    for (int64_t j = 0; j < pool->size; j++) {
        linear += pool->penalty[j] * work->theta[j] * work->direction[j];
        square += pool->penalty[j] * work->direction[j] * work->direction[j];
    }
    int hinge = pool->loss == SQUARED_HINGE;
    double limit = (hinge ? HINGE_SLOPE : OVERSHOT) * -slope;
    double here = fine ? slope + short_step(pool, work, &second) + square
                       : linear + whole_step(pool, work, &second) + square;
    for (int attempt = 0; !exempt && attempt < MOST_LINE; attempt++) {
        if (here <= limit && (!hinge || here >= -limit)) break;
        if (here > 0) high = length;
        else low = length;
        double next = length - here / (second + square);
        if (!(next > low && next < high)) next = high < INFINITY ? (low + high) / 2 : 2 * length;
        length = next;
        here = bend(pool, work, length, &second) + linear + length * square;
    }
    if (length != 1 || (hinge && !fine)) data_gradient(pool, work);
    add(pool, work->theta, length, work->direction);
    for (int64_t i = 0; i < work->padded; i++) work->score[i] += length * work->along[i];
    return length;
}

/* Brings the factor up to date if that pays; 0 if there is none. */
static int refresh(const Pool *pool, Work *work, double rate, double norm, double goal, int must) {
    double count = (double)work->count, size = (double)pool->size, width = (double)pool->width;
    if (pool->loss == SQUARE) return 1;
    if (pool->loss == SQUARED_HINGE) {
        int64_t crossed = 0;
        for (int64_t i = 0; i < work->count; i++) {
            double change = work->curvature[i] - work->summed[i];
            work->changed[crossed] = work->place[i];
            work->change[crossed] = (float)change;
            crossed += change != 0;
        }
        if (crossed == 0) return 1;
        memcpy(work->summed, work->curvature, work->count * 8);
        if (2 * crossed > work->count) make_hessian(pool, work);
        else add_outer(pool, work, work->hessian, work->hessian, crossed);
        return factorise(pool, work);
    }
    /* In operations of a vector: products, loss, solves; the Hessian and its factor. */
    double step = count * width / DOUBLES * 2 + count * 10 + size * 12;
    double anew = count * size * width / FLOATS * 0.7 + size * size * width / FLOATS * 0.5;
    double left = rate < 0.999 ? log(goal / norm) / log(rate) : 1e6;
    if (!must && left * step < 2 * anew) return 1;
    make_hessian(pool, work);
    work->pairs = 0;
    return factorise(pool, work);
}

/* The subset's points, and slopes, curvatures, `data` and the Hessian where it starts. */
static void set_out(const Pool *pool, Work *work, const double *weights, const double *start) {
    work->count = work->pairs = 0;
    work->blur = 0;
    for (int64_t i = 0; i < pool->points; i++) {
        work->place[work->count] = i;
        work->factor[work->count] = pool->C * weights[i];
        work->label[work->count] = pool->labels[i];
        work->count += weights[i] != 0;
    }
    work->padded = (work->count + DOUBLES - 1) / DOUBLES * DOUBLES;
    for (int64_t p = work->count; p < work->count + FLOATS; p++) {
        work->place[p] = 0;
        work->factor[p] = work->score[p] = work->slope[p] = 0;
        work->label[p] = 1;
    }
    memcpy(work->theta, pool->start, pool->width * 8);
    int shared = start == NULL && pool->start_hessian != NULL;
    if (shared) {
        for (int64_t p = 0; p < work->padded; p++) {
            int64_t i = work->place[p];
            work->score[p] = pool->start_scores[i];
            work->slope[p] = work->factor[p] * pool->start_slopes[i];
            work->curvature[p] = work->factor[p] * pool->start_curvatures[i];
        }
        if (adapt_start(pool, work, weights)) return;
    } else {
        double second;
        if (start != NULL) memcpy(work->theta, start, pool->size * 8);
        for (int64_t p = 0; p < work->padded; p += DOUBLES) {
            const double *row[DOUBLES];
            rows_of(pool, work, p, row);
            vd_store(work->score + p, products(pool, row, work->theta));
        }
        memset(work->along, 0, work->padded * 8);
        bend(pool, work, 0, &second);
    }
    data_gradient(pool, work);
    make_hessian(pool, work);
}

/* 1 if the subset's parameters are within the tolerance of its optimum, relative to their size. */
static int train(const Pool *pool, Work *work, const double *weights, const double *start,
                 double tolerance, double *final_norm, int64_t *taken) {
    int stalls = 0;
    set_out(pool, work, weights, start);
    double norm = gradient_norm(pool, work);
    memcpy(work->summed, work->curvature, work->padded * 8);
    *final_norm = norm;
    *taken = 0;
    if (!factorise(pool, work)) return 0;
    for (; norm > 0 && *taken < MOST_STEPS; ++*taken) {
        direct(pool, work);
        double slope = dot(pool, work->gradient, work->direction);
        if (!(slope < 0)) break;
        double size, far = relative(pool, work, work->direction, &size), old = norm;
        double goal = norm * FINISHED * tolerance / far; /* the gradient from where it is near enough */
        if (norm <= goal) break;
        int within = far <= tolerance;
        double blur = norm <= FINE * goal ? blur_of(pool, work) : INFINITY;
        int fine = blur * pool->widest <= BLURRED * goal;
        if (fine) work->blur += blur;
        double length = advance(pool, work, slope, within, fine);
        memcpy(work->before, work->gradient, pool->width * 8);
        norm = gradient_norm(pool, work);
        stalls = within && norm > STALLED * old ? stalls + 1 : 0;
        int stuck = stalls == PATIENCE;
        /* With a factor of just now, or always the current one, it is rounding's floor. */
        if (stuck && (pool->loss != LOGISTIC || work->pairs <= PATIENCE)) break;
        if (stuck) stalls = 0;
        if (pool->loss != SQUARED_HINGE) remember(pool, work, length);
        if (norm <= goal && arrived(pool, work, work->direction, tolerance)) {
            ++*taken;
            *final_norm = norm;
            return 1;
        }
        if (!refresh(pool, work, norm / old, norm, goal, stuck)) break;
    }
    *final_norm = norm;
    return arrived(pool, work, work->direction, tolerance);
}

/* The rows of parameters [subsets, size] for weights [subsets, points] from their own starts, or
   from the pool's where `starts` is NULL; which of them got there. -1 if there is no memory. */
int modelpred_newton(const Pool *pool, int64_t subsets, const double *weights, const double *starts,
                     double tolerance, double *parameters, double *norms, double *objectives,
                     int64_t *steps, uint8_t *reached) {
    Work work;
    if (!begin(&work, pool)) return -1;
    for (int64_t row = 0; row < subsets; row++) {
        const double *own = starts == NULL ? NULL : starts + row * pool->size;
        reached[row] = (uint8_t)train(pool, &work, weights + row * pool->points, own, tolerance,
                                      norms + row, steps + row);
        memcpy(parameters + row * pool->size, work.theta, pool->size * 8);
        objectives[row] = objective_of(pool, &work);
    }
    free(work.memory);
    return 0;
}

_Thread_local double modelpred_counted[2];

/* The operations of float32 and of float64 that this thread has counted since the last call. */
void modelpred_operations(double *found) {
    memcpy(found, modelpred_counted, sizeof modelpred_counted);
    modelpred_counted[0] = modelpred_counted[1] = 0;
}

/* Must be kernels.py's VERSION: raise both when what Python hands over changes. */
int modelpred_version(void) { return 4; }

/* Of all points with weight one, at the pool's start: slopes and curvatures [points], data [width]
   and hessian [width + ROWS, width]. -1 if there is no memory. */
int modelpred_start(const Pool *pool, double *slopes, double *curvatures, double *data,
                    float *hessian) {
    Work work;
    if (!begin(&work, pool)) return -1;
    memset(data, 0, pool->width * 8);
    for (int64_t i = 0; i < pool->points; i++) {
        Bent at = bent(pool->loss, vd_all(pool->start_scores[i]), vd_all(pool->labels[i]));
        slopes[i] = at.slope[0];
        curvatures[i] = at.curvature[0];
        work.changed[i] = i;
        work.change[i] = (float)(pool->C * curvatures[i]);
        for (int64_t j = 0; j < pool->size; j++)
            data[j] += pool->C * slopes[i] * pool->design[i * pool->width + j];
    }
    set_penalty(pool, hessian);
    add_outer(pool, &work, hessian, hessian, pool->points);
    free(work.memory);
    return 0;
}
