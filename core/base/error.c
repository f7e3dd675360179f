/*
 * error.c - error messages: see error.h
 */
#include "config.h"

#include "base/error.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const words[] = {
#define QKV_ERROR(id, word) [QKV_##id] = word,
#include "base/error.def"
#undef QKV_ERROR
};
static_assert(sizeof words / sizeof words[0] == QKV_N_CODES,
              "every code has its word");

const char *qkv_code_word(qkv_code code)
{
    return words[code];
}

bool qkv_fail(qkv_error *err, qkv_code code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    err->code = code;
    return false;
}

bool qkv_fail_errno(qkv_error *err, const char *fmt, ...)
{
    const int saved = errno;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    const size_t used = strlen(err->msg);
    snprintf(err->msg + used, sizeof err->msg - used, ": %s", strerror(saved));
    err->code = saved == ENOMEM ? QKV_ENOMEM : QKV_EIO;
    return false;
}

bool qkv_fail_in(qkv_error *err, const char *fmt, ...)
{
    char inner[sizeof err->msg];
    memcpy(inner, err->msg, sizeof inner);
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    const size_t used = strlen(err->msg);
    snprintf(err->msg + used, sizeof err->msg - used, ": %s", inner);
    return false;
}
