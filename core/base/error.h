/*
 * error.h - how a function says that it failed, and why
 *
 * A fallible function takes `qkv_error *err` last and returns bool (true =
 * done) or a pointer (NULL = failed). The message is written once, where the
 * fault is seen: one line, lower case, what was wrong with the value, what
 * was expected. Callers pass it on; at most they add where they were. The
 * struct is the caller's; nothing is global. err may not be NULL.
 */
#ifndef QKV_ERROR_H
#define QKV_ERROR_H
#include <stdbool.h>

typedef enum qkv_code {
#define QKV_ERROR(id, word) QKV_##id,
#include "base/error.def"
#undef QKV_ERROR
    QKV_N_CODES
} qkv_code;

typedef struct qkv_error {
    qkv_code code;
    char msg[512];              /* cut, never overrun; valid UTF-8 if its parts are */
} qkv_error;

#if defined(__GNUC__)
#define QKV_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define QKV_PRINTF(f, a)
#endif

/* Write code and message; always false, so that `return qkv_fail(...)` reads
 * as what it is. */
bool qkv_fail(qkv_error *err, qkv_code code, const char *fmt, ...)
    QKV_PRINTF(3, 4);

/* The same from errno: "<what>: <strerror(errno)>", code EIO (ENOMEM for
 * ENOMEM). Always false. */
bool qkv_fail_errno(qkv_error *err, const char *fmt, ...) QKV_PRINTF(2, 3);

/* Put "<context>: " in front of the message that is there. Always false. */
bool qkv_fail_in(qkv_error *err, const char *fmt, ...) QKV_PRINTF(2, 3);

const char *qkv_code_word(qkv_code code);

#endif
