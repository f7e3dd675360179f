/*
 * site.h - the named activations, as a table (site.def)
 *
 * A slot is a site at a layer (STEM and HEAD sites: layer 0), numbered
 * layer * QKV_N_SITES + site. Names are found three ways: in full
 * ("blocks.5.attn.hook_pattern"), in full with * ("blocks.*.attn.hook_q",
 * "*"), or in short, which means every layer: without "hook_" and, where the
 * rest is unique, without the module ("pattern", "ln1.normalized", "post").
 */
#ifndef QKV_SITE_H
#define QKV_SITE_H
#include "model/model.h"

typedef enum qkv_site {
#define QKV_SITE(id, name, level, shape, reach, needs) QKV_SITE_##id,
#include "model/site.def"
#undef QKV_SITE
    QKV_N_SITES
} qkv_site;

typedef enum qkv_site_level { QKV_STEM, QKV_BLOCK, QKV_HEAD } qkv_site_level;
typedef enum qkv_site_shape {
    QKV_SHAPE_MODEL, QKV_SHAPE_MLP, QKV_SHAPE_SCALE, QKV_SHAPE_HEADS,
    QKV_SHAPE_KV_HEADS, QKV_SHAPE_RESULT, QKV_SHAPE_SCORES, QKV_SHAPE_VOCAB,
    QKV_SHAPE_POOLED, QKV_SHAPE_PAIR
} qkv_site_shape;
typedef enum qkv_reach { QKV_REACH_OWN, QKV_REACH_LATER } qkv_reach;

typedef struct qkv_site_info {
    const char *name;
    qkv_site_level level;
    qkv_site_shape shape;
    qkv_reach reach;
    int needs;
} qkv_site_info;

extern const qkv_site_info qkv_sites[QKV_N_SITES];

enum { QKV_SITE_ROOM = 64 };    /* longest name and its NUL */

static inline int64_t qkv_slot(qkv_site site, int64_t layer)
{
    return layer * QKV_N_SITES + site;
}

/* Is the site in this stack? */
bool qkv_site_is_there(qkv_site site, const qkv_stack *s);
/* "blocks.5.attn.hook_q" into out [QKV_SITE_ROOM]. */
void qkv_site_name(char *out, qkv_site site, int64_t layer);

/* Floats a row of one position holds; the axes after pos (up to 2) with their
 * sizes. SCORES: no rows, width 0. Returns their number. */
int qkv_site_axes(int64_t size[2], const char *axis[2], qkv_site site,
                  const qkv_stack *s);
int64_t qkv_site_width(qkv_site site, const qkv_stack *s);

/* Which slots a name or pattern means: mark [n_layers * QKV_N_SITES] gets
 * `bit` set on each. Nothing matched: ENOTFOUND with the nearest names. */
bool qkv_site_match(uint8_t *mark, uint8_t bit, const qkv_stack *s,
                    const char *pattern, qkv_error *err);
/* One site by a full name (then *layer is set) or a short one (*layer = -1
 * when it is in every block, else 0). */
bool qkv_site_find(qkv_site *site, int64_t *layer, const qkv_stack *s,
                   const char *name, qkv_error *err);

#endif
