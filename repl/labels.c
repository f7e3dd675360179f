/*
 * labels.c - spelling, measuring and placing words in pictures: labels.h
 *
 * Placement: every label has candidate places, eight directions at four
 * distances. A place costs what it covers (other labels most, then points,
 * then lines), how far it is and how unusual (right of the point is best).
 * Labels in a crowd choose first; then each in turn moves to its cheapest
 * place given all others, until nobody moves. That is coordinate descent on
 * the cost that Christensen, Marks and Shieber (1995, "An empirical study of
 * algorithms for point-feature label placement") anneal; for the few dozen
 * words of a figure it finds the same places. What still overlaps is hidden.
 */
#include "config.h"

#include "repl/labels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/alloc.h"
#include "base/interrupt.h"

/* ---- spelling ---- */

/* One code point at s, at most `left` bytes: its length, or 0 when the bytes
 * are not UTF-8 (overlong forms and surrogates are not). */
static size_t decode(uint32_t *code, const char *s, size_t left)
{
    utf8proc_int32_t c;
    const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s,
        left > 4 ? 4 : (utf8proc_ssize_t)left, &c);
    if (n <= 0)
        return 0;
    *code = (uint32_t)c;
    return (size_t)n;
}

/* Nothing a reader could see, or that would move what stands around it. */
static bool is_invisible(uint32_t code, bool first)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return true;
    case UTF8PROC_CATEGORY_ZS:
        return code != ' ';
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return first;
    default:
        return false;
    }
}

static bool spell_bytes(qkv_text *out, const char *s, size_t n, qkv_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!qkv_text_printf(out, err, "\\x%02X", (unsigned char)s[i]))
            return false;
    return true;
}

bool qkv_label_spell(qkv_text *out, const char *token, size_t bytes, bool dots,
                     qkv_covers_fn *covers, void *context, qkv_error *err)
{
    static const char dot[] = "\xC2\xB7", newline[] = "\xE2\x86\xB5",
                      tab[] = "\xE2\x87\xA5";
    bool leading = true, ok = true;
    for (size_t i = 0, n; ok && i < bytes; i += n) {
        uint32_t code = 0;
        n = decode(&code, token + i, bytes - i);
        if (n == 0) {
            n = 1;
            ok = spell_bytes(out, token + i, 1, err);
        } else if (code == ' ' && leading && dots) {
            ok = qkv_text_put(out, dot, 2, err);
            continue;
        } else if (code == '\n') {
            ok = qkv_text_put(out, newline, 3, err);
        } else if (code == '\t') {
            ok = qkv_text_put(out, tab, 3, err);
        } else if (code < ' ' || code == 0x7f) {
            ok = spell_bytes(out, token + i, 1, err);
        } else if (is_invisible(code, leading)
                   || (code > 0x7e && covers != NULL
                       && !covers(context, code))) {
            ok = qkv_text_printf(out, err, "\\u{%X}", code);
        } else {
            ok = qkv_text_put(out, token + i, n, err);
        }
        leading = false;
    }
    return ok;
}

/* ---- measuring ---- */

/* Advance widths of DejaVu Sans 2.37 in em / 1000, U+0020 to U+007E. */
static const short ADVANCE[95] = {
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318,
    337, 636, 636, 636, 636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838,
    838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557,
    863, 748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390,
    337, 390, 838, 500, 500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278,
    579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592,
    525, 636, 337, 636, 838};

static double advance(uint32_t code)
{
    if (code >= 0x20 && code <= 0x7e)
        return ADVANCE[code - 0x20] / 1000.0;
    if (code == 0xb7)
        return 0.318;
    switch (utf8proc_charwidth((utf8proc_int32_t)code)) {
    case 0:
        return 0;
    case 2:
        return 1.0;
    default:
        return code >= 0x400 ? 0.78 : 0.66;
    }
}

size_t qkv_label_cut(const char *text, size_t bytes, double em)
{
    double width = 0;
    size_t i = 0;
    while (i < bytes) {
        uint32_t code = '?';
        const size_t n = decode(&code, text + i, bytes - i);
        width += advance(code);
        if (!(width <= em))
            break;
        i += n > 0 ? n : 1;
    }
    return i;
}

double qkv_label_width(const char *text, size_t bytes)
{
    double width = 0;
    for (size_t i = 0, n; i < bytes; i += n > 0 ? n : 1) {
        uint32_t code = '?';
        n = decode(&code, text + i, bytes - i);
        width += advance(code);
    }
    return width;
}

int qkv_label_columns(const char *text, size_t bytes)
{
    int columns = 0;
    for (size_t i = 0, n; i < bytes; i += n > 0 ? n : 1) {
        uint32_t code = '?';
        n = decode(&code, text + i, bytes - i);
        columns += utf8proc_charwidth((utf8proc_int32_t)code);
    }
    return columns;
}

/* ---- placing ---- */

typedef struct box {
    double x0, y0, x1, y1;
} box;

enum { N_DIRECTIONS = 8, N_RINGS = 5, N_PLACES = N_DIRECTIONS * N_RINGS,
       N_PASSES = 8 };

/* Costs, in one currency: pixels of distance that it is worth. */
static const double COST_LABEL = 1000, COST_POINT = 150, COST_LEADER = 25,
                    COST_CROSSING = 40, COST_SEGMENT = 30;

/* Direction of the label's middle from the point, and how welcome it is. */
static const struct {
    double dx, dy, cost;
    int align;
} DIRECTIONS[N_DIRECTIONS] = {
    {1, 0, 0, 0}, {-1, 0, 2, 2}, {0, -1, 3, 1}, {0, 1, 4, 1},
    {1, -1, 5, 0}, {1, 1, 6, 0}, {-1, -1, 7, 2}, {-1, 1, 8, 2}};

static const double RINGS[N_RINGS] = {3, 9, 18, 30, 46};   /* gap in pixels */

typedef struct placing {
    qkv_label *labels;
    size_t n;
    const qkv_label_frame *frame;
    size_t *tried;              /* [n_tried] labels, in order of choosing */
    size_t n_tried;
    box *at;                    /* [n] where they are now */
    bool *placed;               /* [n] */
} placing;

static bool is_finite_point(const qkv_label *l)
{
    return isfinite(l->x) && isfinite(l->y);
}

/* Where label l would be at place k; sets its anchor and alignment. */
static box place_at(qkv_label *l, int k, double radius)
{
    const int d = k % N_DIRECTIONS, ring = k / N_DIRECTIONS;
    const double dx = DIRECTIONS[d].dx, dy = DIRECTIONS[d].dy;
    /* On a diagonal the corner of the box is what comes near. */
    const double gap = (radius + RINGS[ring])
        * (dx != 0 && dy != 0 ? 0.7 : 1);
    l->align = DIRECTIONS[d].align;
    l->leader = ring > 1;
    l->anchor_x = l->x + dx * gap;
    l->anchor_y = l->y + dy * (gap + l->height / 2);
    const double left = l->anchor_x - l->width * l->align / 2;
    return (box){left, l->anchor_y - l->height / 2, left + l->width,
                 l->anchor_y + l->height / 2};
}

static bool overlap(box a, box b)
{
    return a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
}

static bool covers_point(box a, double x, double y, double radius)
{
    return x > a.x0 - radius && x < a.x1 + radius
        && y > a.y0 - radius && y < a.y1 + radius;
}

/* Does the segment meet the box? Clipped against its four sides in turn
 * (Liang and Barsky, 1984). */
static bool crosses(box a, const double s[4])
{
    if ((s[0] < a.x0 && s[2] < a.x0) || (s[0] > a.x1 && s[2] > a.x1)
        || (s[1] < a.y0 && s[3] < a.y0) || (s[1] > a.y1 && s[3] > a.y1))
        return false;               /* most are far away */
    const double dx = s[2] - s[0], dy = s[3] - s[1];
    const double p[4] = {-dx, dx, -dy, dy};
    const double q[4] = {s[0] - a.x0, a.x1 - s[0], s[1] - a.y0, a.y1 - s[1]};
    double from = 0, to = 1;
    for (int i = 0; i < 4; i++) {
        if (p[i] == 0) {
            if (q[i] < 0)
                return false;
        } else if (p[i] < 0) {
            from = fmax(from, q[i] / p[i]);
        } else {
            to = fmin(to, q[i] / p[i]);
        }
    }
    return from < to;
}

/* What it costs to have label i in box b, given where the others are; once
 * that is `limit` or more, how much more does not matter. */
static double cost_of(const placing *p, size_t i, int k, box b, double limit)
{
    const qkv_label *me = &p->labels[i];
    const qkv_label_frame *f = p->frame;
    if (b.x0 < f->left || b.x1 > f->right || b.y0 < f->top
        || b.y1 > f->bottom)
        return HUGE_VAL;
    double cost = DIRECTIONS[k % N_DIRECTIONS].cost + RINGS[k / N_DIRECTIONS]
        + (me->leader ? COST_LEADER : 0);
    const double mine[4] = {me->x, me->y, me->anchor_x, me->anchor_y};
    for (size_t t = 0; t < p->n_tried && cost < limit; t++) {
        const size_t j = p->tried[t];
        if (j == i || !p->placed[j])
            continue;
        const qkv_label *o = &p->labels[j];
        const double theirs[4] = {o->x, o->y, o->anchor_x, o->anchor_y};
        if (overlap(b, p->at[j]))
            cost += COST_LABEL;
        if (me->leader && crosses(p->at[j], mine))
            cost += COST_CROSSING;
        if (o->leader && crosses(b, theirs))
            cost += COST_CROSSING;
    }
    for (size_t j = 0; j < p->n && cost < limit; j++)
        if (j != i && is_finite_point(&p->labels[j])
            && covers_point(b, p->labels[j].x, p->labels[j].y, f->radius))
            cost += COST_POINT;
    for (size_t s = 0; s < f->n_segments; s++)
        if (crosses(b, f->segments[s]))
            cost += COST_SEGMENT;
    return cost;
}

/* Move label i to its cheapest place; true when that is another one. */
static bool choose(placing *p, size_t i)
{
    qkv_label *l = &p->labels[i];
    double best = HUGE_VAL;
    int best_k = -1;
    for (int k = 0; k < N_PLACES; k++) {
        const box b = place_at(l, k, p->frame->radius);
        const double cost = cost_of(p, i, k, b, best);
        if (cost < best) {
            best = cost;
            best_k = k;
        }
    }
    const bool had = p->placed[i];
    const box before = p->at[i];
    p->placed[i] = best_k >= 0;
    if (best_k < 0) {
        l->leader = false;
        return had;
    }
    p->at[i] = place_at(l, best_k, p->frame->radius);
    return !had || p->at[i].x0 != before.x0 || p->at[i].y0 != before.y0;
}

/* How many other points are near enough to matter. */
static size_t crowd(const placing *p, size_t i)
{
    const qkv_label *l = &p->labels[i];
    size_t n = 0;
    for (size_t j = 0; j < p->n; j++)
        n += fabs(p->labels[j].x - l->x) < l->width + 20
            && fabs(p->labels[j].y - l->y) < 2 * l->height + 20;
    return n;
}

typedef struct ranked {
    size_t crowd, index;
} ranked;

static int by_crowd(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->crowd != y->crowd)
        return x->crowd < y->crowd ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Which labels are tried, the most crowded first. */
static bool order(placing *p, qkv_error *err)
{
    ranked *r = qkv_alloc(QKV_LABELS_MAX * sizeof *r, err);
    if (r == NULL)
        return false;
    for (size_t i = 0; i < p->n && p->n_tried < QKV_LABELS_MAX; i++)
        if (p->labels[i].width > 0 && is_finite_point(&p->labels[i]))
            r[p->n_tried++] = (ranked){crowd(p, i), i};
    qsort(r, p->n_tried, sizeof *r, by_crowd);
    for (size_t t = 0; t < p->n_tried; t++)
        p->tried[t] = r[t].index;
    qkv_free(r);
    return true;
}

/* Hide what overlaps a label that is shown; those in the least of a crowd
 * are settled first. */
static void hide_overlaps(placing *p)
{
    for (size_t t = p->n_tried; t-- > 0;) {
        const size_t i = p->tried[t];
        bool free = p->placed[i];
        for (size_t u = t + 1; free && u < p->n_tried; u++) {
            const size_t j = p->tried[u];
            free = !p->labels[j].shown || !overlap(p->at[i], p->at[j]);
        }
        p->labels[i].shown = free;
        p->labels[i].leader = free && p->labels[i].leader;
    }
}

bool qkv_labels_place(qkv_label *labels, size_t n,
                      const qkv_label_frame *frame, qkv_error *err)
{
    placing p = {.labels = labels, .n = n, .frame = frame};
    for (size_t i = 0; i < n; i++) {
        labels[i].shown = labels[i].leader = false;
        labels[i].align = 0;
        labels[i].anchor_x = labels[i].x;
        labels[i].anchor_y = labels[i].y;
    }
    p.tried = qkv_alloc_zero(QKV_LABELS_MAX, sizeof *p.tried, err);
    p.at = p.tried ? qkv_alloc_zero(n, sizeof *p.at, err) : NULL;
    p.placed = p.at ? qkv_alloc_zero(n, sizeof *p.placed, err) : NULL;
    bool ok = p.placed != NULL && order(&p, err), moved = true;
    for (int pass = 0; ok && moved && pass < N_PASSES; pass++) {
        moved = false;
        for (size_t t = 0; ok && t < p.n_tried; t++) {
            moved = choose(&p, p.tried[t]) || moved;
            ok = qkv_check(err);
        }
    }
    if (ok)
        hide_overlaps(&p);
    qkv_free(p.placed);
    qkv_free(p.at);
    qkv_free(p.tried);
    return ok;
}
