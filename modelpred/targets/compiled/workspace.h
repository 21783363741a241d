/* Memory for one subset at a time, as one piece that is cut into parts. */

#ifndef MODELPRED_WORKSPACE_H
#define MODELPRED_WORKSPACE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    void *field; /* the address of a pointer, which is to point at the part */
    size_t bytes;
} Part;

/* Points all fields at zeroed parts that begin at cache lines; what to free, or NULL. */
static void *workspace_for(const Part *parts, size_t count) {
    size_t all = 64;
    for (size_t k = 0; k < count; k++) all += (parts[k].bytes + 63) / 64 * 64;
    char *memory = malloc(all), *at = memory;
    if (memory == NULL) return NULL;
    memset(memory, 0, all);
    at += -(uintptr_t)at % 64;
    for (size_t k = 0; k < count; k++) {
        memcpy(parts[k].field, &at, sizeof at);
        at += (parts[k].bytes + 63) / 64 * 64;
    }
    return memory;
}

#endif
