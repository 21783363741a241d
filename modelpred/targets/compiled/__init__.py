"""Training in C: the families' solvers where this installation has them and the pool suits them.

newton.c, softmax.c and momentum.c train one subset after another in a core's cache, each in a file
of steps and headers for what the steps are made of. The same source is compiled at installation for
several kinds of processor, and the best that this one can run is loaded. Without a compiler there is
none, and training goes through torch alone: the same answers, some times slower. While C computes,
Python's other threads run.
"""
