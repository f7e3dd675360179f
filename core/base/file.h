/*
 * file.h - files read by mapping, written whole or not at all
 */
#ifndef QKV_FILE_H
#define QKV_FILE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* A whole file, mapped read-only and private: pages are read when they are
 * touched. Reference-counted; whoever points into it holds a reference.
 * Limit: if another program cuts the file short while it is mapped, touching
 * the lost pages ends this program (SIGBUS); the manual says so. */
typedef struct qkv_map {
    int refs;
    const unsigned char *data;  /* NULL for an empty file */
    size_t bytes;
    char *path;
} qkv_map;

qkv_map *qkv_map_open(const char *path, qkv_error *err);
qkv_map *qkv_map_retain(qkv_map *map);
void qkv_map_release(qkv_map *map);         /* NULL is allowed */
/* These pages will not be read again soon; the system may take them. */
void qkv_map_forget(const qkv_map *map, size_t offset, size_t bytes);

/* Write a file under a temporary name beside `path`; commit flushes, checks
 * and renames it, abandon deletes it. Exactly one of the two ends it. */
typedef struct qkv_writer {
    FILE *file;
    char *path, *temporary;
} qkv_writer;

bool qkv_writer_open(qkv_writer *w, const char *path, qkv_error *err);
bool qkv_writer_put(qkv_writer *w, const void *data, size_t bytes,
                    qkv_error *err);
bool qkv_writer_commit(qkv_writer *w, qkv_error *err);
void qkv_writer_abandon(qkv_writer *w);     /* safe after a failed open */

bool qkv_is_directory(const char *path);
bool qkv_is_file(const char *path);

#endif
