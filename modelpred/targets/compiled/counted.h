/* How many additions and multiplications the products of this thread have taken, for benchmarks. */

#ifndef MODELPRED_COUNTED_H
#define MODELPRED_COUNTED_H

extern _Thread_local double modelpred_counted[2]; /* of float32, of float64 */

static inline void count_floats(double operations) { modelpred_counted[0] += operations; }
static inline void count_doubles(double operations) { modelpred_counted[1] += operations; }

#endif
