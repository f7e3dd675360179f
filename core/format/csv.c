/*
 * csv.c - tables of numbers as text: see csv.h
 *
 * Read twice: once to count the lines and see that they are equally long, once
 * for the numbers. A quoted cell may hold separators and line ends, as RFC
 * 4180 says; a doubled quote in it makes it no number, which is all we ask.
 */
#include "config.h"

#include "format/csv.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "format/json.h"        /* qkv_slice */
#include "format/names.h"       /* qkv_is_printable */
#include "format/number.h"

typedef struct reader {
    const char *at, *end;
    char separator;
    int64_t line;               /* of the text, from 1 */
} reader;

static reader begin(const qkv_map *map, char separator)
{
    const char *at = map->bytes > 0 ? (const char *)map->data : "";
    const char *end = at + map->bytes;
    if (map->bytes >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
        at += 3;                /* spreadsheets write a byte order mark */
    while (end > at && (end[-1] == '\n' || end[-1] == '\r'))
        end--;                  /* the last line ends, or blank ones follow */
    return (reader){at, end, separator, 1};
}

/* ---- cells ---- */

/* Behind the closing quote of the cell at `at`; NULL if there is none. */
static const char *quote_end(reader *r, const char *at)
{
    for (at++; at < r->end; at++) {
        if (*at == '\n')
            r->line++;
        if (*at != '"')
            continue;
        if (at + 1 == r->end || at[1] != '"')
            return at + 1;
        at++;
    }
    return NULL;
}

/* The next cell, without its quotes; *last: a line ends behind it. */
static bool next_cell(qkv_slice *cell, bool *last, reader *r, qkv_error *err)
{
    const char *from = r->at, *at = from;
    const bool quoted = at < r->end && *at == '"';
    const int64_t line = r->line;
    if (quoted && (at = quote_end(r, at)) == NULL)
        return qkv_fail(err, QKV_EFORMAT, "line %" PRId64 ": a quote has no "
                        "end", line);
    const char *behind = at;
    while (at < r->end && *at != r->separator && *at != '\n')
        at++;
    *last = at == r->end || *at == '\n';
    r->at = at < r->end ? at + 1 : at;
    const char *end = *last && at > behind && at[-1] == '\r' ? at - 1 : at;
    if (quoted && end != behind)
        return qkv_fail(err, QKV_EFORMAT, "line %" PRId64 ": text behind a "
                        "closing quote", line);
    *cell = quoted ? (qkv_slice){from + 1, (size_t)(end - from) - 2}
        : (qkv_slice){from, (size_t)(end - from)};
    r->line += *last;
    return true;
}

/* A number, or NaN for an empty cell; blanks round it do not count. */
static bool cell_number(double *out, qkv_slice cell)
{
    while (cell.bytes > 0 && (*cell.data == ' ' || *cell.data == '\t')) {
        cell.data++;
        cell.bytes--;
    }
    while (cell.bytes > 0 && (cell.data[cell.bytes - 1] == ' '
                              || cell.data[cell.bytes - 1] == '\t'))
        cell.bytes--;
    if (cell.bytes > 0)
        return qkv_number_read(out, cell.data, cell.bytes);
    *out = (double)NAN;
    return true;
}

/* ---- lines ---- */

typedef struct shape {
    int64_t rows, columns;
    bool header;                /* the first line is not numbers */
} shape;

static bool measure(shape *s, reader r, qkv_error *err)
{
    *s = (shape){0};
    if (r.at == r.end)
        return qkv_fail(err, QKV_EFORMAT, "no numbers in it");
    for (bool more = true; more; s->rows++) {
        const int64_t line = r.line;
        int64_t columns = 0;
        double ignored;
        for (bool last = false; !last; columns++) {
            qkv_slice cell;
            if (!next_cell(&cell, &last, &r, err))
                return false;
            if (s->rows == 0 && !cell_number(&ignored, cell))
                s->header = true;
        }
        if (s->rows > 0 && columns != s->columns)
            return qkv_fail(err, QKV_EFORMAT, "line %" PRId64 " has %" PRId64
                            " cells, the first has %" PRId64, line, columns,
                            s->columns);
        s->columns = columns;
        more = r.at < r.end;
        if (!qkv_check(err))
            return false;
    }
    s->rows -= s->header;
    return s->rows > 0
        || qkv_fail(err, QKV_EFORMAT, "a header and no numbers");
}

static bool not_a_number(qkv_slice cell, int64_t line, int64_t column,
                         qkv_error *err)
{
    const bool show = cell.bytes <= 100 && qkv_is_printable(cell);
    return qkv_fail(err, QKV_EFORMAT, "line %" PRId64 ", cell %" PRId64 ": %s"
                    "%.*s%s was found, a number was expected", line,
                    column + 1, show ? "'" : "text",
                    show ? (int)cell.bytes : 0, cell.data, show ? "'" : "");
}

/* out [row, col] */
static bool read_numbers(float *out, const shape *s, reader r, qkv_error *err)
{
    qkv_slice cell;
    bool last = false;
    while (s->header && !last)
        if (!next_cell(&cell, &last, &r, err))
            return false;
    for (int64_t row = 0; row < s->rows; row++) {
        for (int64_t column = 0; column < s->columns; column++) {
            const int64_t line = r.line;
            double x;
            if (!next_cell(&cell, &last, &r, err))
                return false;
            if (!cell_number(&x, cell))
                return not_a_number(cell, line, column, err);
            *out++ = (float)x;
        }
        if (!qkv_check(err))
            return false;
    }
    return true;
}

qkv_tensor *qkv_csv_load(const char *path, char separator, qkv_error *err)
{
    static const char *const axes[] = {"row", "col"};
    qkv_tensor *t = NULL;
    shape s;
    qkv_map *map = qkv_map_open(path, err);
    if (map == NULL)
        return NULL;
    const reader r = begin(map, separator);
    if (measure(&s, r, err)
        && (t = qkv_tensor_new(QKV_F32, 2, (int64_t[]){s.rows, s.columns},
                               axes, err)) != NULL
        && !read_numbers(qkv_tensor_data(t), &s, r, err)) {
        qkv_tensor_release(t);
        t = NULL;
    }
    if (t == NULL)
        qkv_fail_in(err, "%s", path);
    qkv_map_release(map);
    return t;
}

/* ---- writing ---- */

static bool write_cell(qkv_writer *w, double x, int digits, char behind,
                       qkv_error *err)
{
    char text[40];
    int n;
    if (isnan(x))
        n = (int)strlen(strcpy(text, "nan"));   /* without its sign */
    else
        n = qkv_number_write(text, sizeof text - 1, digits, x);
    text[n] = behind;
    return qkv_writer_put(w, text, (size_t)n + 1, err);
}

/* t of at most two dimensions, a plain type. */
static bool write_rows(qkv_writer *w, const qkv_tensor *t, char separator,
                       qkv_error *err)
{
    const int64_t rows = t->n_dims > 0 ? t->shape[0] : 1;
    const int64_t columns = t->n_dims > 1 ? t->shape[1] : 1;
    const int digits = qkv_is_float(t->dtype) ? 9 : 17;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++)
            if (!write_cell(w, qkv_tensor_get(t, (int64_t[]){i, j}), digits,
                            j < columns - 1 ? separator : '\n', err))
                return false;
        if (!qkv_check(err))
            return false;
    }
    return true;
}

bool qkv_csv_save(const char *path, const qkv_tensor *t, char separator,
                  qkv_error *err)
{
    char what[200];
    qkv_tensor *own = NULL;
    qkv_writer w = {0};
    if (t->n_dims > 2) {
        qkv_tensor_describe(t, what, sizeof what);
        return qkv_fail(err, QKV_ESHAPE, "cannot write %s: a table has rows "
                        "and columns, this is %s", path, what);
    }
    if (qkv_is_quantised(t->dtype)) {
        own = qkv_tensor_float(t, err);
        if (own == NULL)
            return false;
        t = own;
    }
    bool good = qkv_writer_open(&w, path, err)
        && write_rows(&w, t, separator, err);
    if (good)
        good = qkv_writer_commit(&w, err);
    else
        qkv_writer_abandon(&w);
    qkv_tensor_release(own);
    return good;
}
