/*
 * file.c - mapped reading, whole writing: see file.h
 */
#include "config.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

qkv_map *qkv_map_open(const char *path, qkv_error *err)
{
    void *data = NULL;
    qkv_map *map = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        qkv_fail_errno(err, "%s", path);
        return NULL;
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        qkv_fail_errno(err, "%s", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        qkv_fail(err, QKV_EIO, "%s: %s, a file was expected", path,
                 S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
        goto out;
    }
    const size_t bytes = (size_t)st.st_size;
    if (bytes > 0) {
        data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            data = NULL;
            qkv_fail_errno(err, "%s (%zu bytes)", path, bytes);
            goto out;
        }
    }
    map = qkv_alloc_zero(1, sizeof *map, err);
    if (map != NULL && (map->path = qkv_strdup(path, err)) == NULL) {
        qkv_free(map);
        map = NULL;
    }
    if (map == NULL) {
        if (data != NULL)
            munmap(data, bytes);
        goto out;
    }
    map->refs = 1;
    map->data = data;
    map->bytes = bytes;
out:
    close(fd);
    return map;
}

qkv_map *qkv_map_retain(qkv_map *map)
{
    map->refs++;
    return map;
}

void qkv_map_release(qkv_map *map)
{
    if (map == NULL || --map->refs > 0)
        return;
    if (map->data != NULL)
        munmap((void *)(uintptr_t)map->data, map->bytes);
    qkv_free(map->path);
    qkv_free(map);
}

void qkv_map_forget(const qkv_map *map, size_t offset, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t begin = (offset + page - 1) / page * page;
    const size_t end = (offset + bytes) / page * page;
    if (end > begin && end <= map->bytes)
        madvise((void *)(uintptr_t)(map->data + begin), end - begin,
                MADV_DONTNEED);
}

bool qkv_writer_open(qkv_writer *w, const char *path, qkv_error *err)
{
    *w = (qkv_writer){0};
    const size_t room = strlen(path) + 16;
    w->path = qkv_strdup(path, err);
    w->temporary = w->path != NULL ? qkv_alloc(room, err) : NULL;
    if (w->temporary == NULL) {
        qkv_writer_abandon(w);
        return false;
    }
    snprintf(w->temporary, room, "%s.XXXXXX", path);
    const int fd = mkstemp(w->temporary);
    if (fd < 0) {
        qkv_fail_errno(err, "cannot write %s", path);
        w->temporary[0] = '\0';
        qkv_writer_abandon(w);
        return false;
    }
    const mode_t mask = umask(0);       /* mkstemp made it private */
    umask(mask);
    fchmod(fd, 0666 & ~mask);
    w->file = fdopen(fd, "wb");
    if (w->file == NULL) {
        qkv_fail_errno(err, "cannot write %s", path);
        close(fd);
        qkv_writer_abandon(w);
        return false;
    }
    return true;
}

bool qkv_writer_put(qkv_writer *w, const void *data, size_t bytes,
                    qkv_error *err)
{
    if (bytes == 0 || fwrite(data, 1, bytes, w->file) == bytes)
        return true;
    return qkv_fail_errno(err, "cannot write %s", w->path);
}

bool qkv_writer_commit(qkv_writer *w, qkv_error *err)
{
    const bool flushed = fflush(w->file) == 0 && !ferror(w->file)
        && fsync(fileno(w->file)) == 0;
    if (!flushed) {
        qkv_fail_errno(err, "cannot write %s", w->path);
        qkv_writer_abandon(w);
        return false;
    }
    const bool closed = fclose(w->file) == 0;
    w->file = NULL;
    if (!closed || rename(w->temporary, w->path) != 0) {
        qkv_fail_errno(err, "cannot write %s", w->path);
        qkv_writer_abandon(w);
        return false;
    }
    w->temporary[0] = '\0';
    qkv_writer_abandon(w);
    return true;
}

void qkv_writer_abandon(qkv_writer *w)
{
    if (w->file != NULL)
        fclose(w->file);
    if (w->temporary != NULL && w->temporary[0] != '\0')
        unlink(w->temporary);
    qkv_free(w->temporary);
    qkv_free(w->path);
    *w = (qkv_writer){0};
}

bool qkv_is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool qkv_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}
