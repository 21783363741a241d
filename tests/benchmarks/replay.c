/* Runs recorded calls of the kernels (see aarch64.py): replay LIBRARY CALLS RESULTS. */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef int Train(const void *, int64_t, void *, void *, double, void *, void *, void *, void *,
                  void *);
typedef int Descend(const void *, int64_t, void *, void *, void *);
typedef int Start(const void *, void *, void *, void *, void *);

enum { NOTHING, MEMORY, REAL, WHOLE }; /* what an argument is */

typedef struct {
    int64_t kind, size;
    void *memory;
    double real;
    int64_t whole;
} Argument;

static void take(void *into, size_t size, FILE *file) {
    if (size && fread(into, 1, size, file) != size) exit(3);
}

static int64_t number(FILE *file) {
    int64_t found;
    take(&found, sizeof found, file);
    return found;
}

static void *block(int64_t size, FILE *file) {
    void *found = aligned_alloc(64, (size_t)(size + 64) / 64 * 64);
    if (found == NULL) exit(4);
    take(found, (size_t)size, file);
    return found;
}

static Argument argument(FILE *file) {
    Argument found = {.kind = number(file)};
    if (found.kind == MEMORY) {
        found.size = number(file);
        found.memory = block(found.size, file);
    } else if (found.kind == REAL) {
        take(&found.real, sizeof found.real, file);
    } else if (found.kind == WHOLE) {
        found.whole = number(file);
    }
    return found;
}

int main(int count, char **names) {
    if (count != 4) return 2;
    void *library = dlopen(names[1], RTLD_NOW);
    FILE *calls = fopen(names[2], "rb"), *results = fopen(names[3], "wb");
    if (library == NULL || calls == NULL || results == NULL) return 2;
    for (int64_t left = number(calls); left > 0; left--) {
        char name[32];
        take(name, sizeof name, calls);
        char *shared = block(number(calls), calls);
        for (int64_t fields = number(calls); fields > 0; fields--) {
            int64_t place = number(calls);
            *(void **)(shared + place) = block(number(calls), calls);
        }
        Argument a[10];
        int64_t arguments = number(calls);
        for (int64_t i = 0; i < arguments; i++) a[i] = argument(calls);
        void *kernel = dlsym(library, name);
        if (kernel == NULL) return 5;
        int failed;
        if (arguments == 9)
            failed = ((Train *)kernel)(shared, a[0].whole, a[1].memory, a[2].memory, a[3].real,
                                       a[4].memory, a[5].memory, a[6].memory, a[7].memory,
                                       a[8].memory);
        else if (a[0].kind == WHOLE)
            failed = ((Descend *)kernel)(shared, a[0].whole, a[1].memory, a[2].memory, a[3].memory);
        else
            failed = ((Start *)kernel)(shared, a[0].memory, a[1].memory, a[2].memory, a[3].memory);
        if (failed) return 6;
        for (int64_t i = 0; i < arguments; i++)
            if (a[i].kind == MEMORY) fwrite(a[i].memory, 1, (size_t)a[i].size, results);
    }
    return fclose(results) ? 7 : 0;
}
