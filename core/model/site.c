/*
 * site.c - the named activations: see site.h
 */
#include "config.h"

#include "model/site.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

typedef enum needs {
    NEEDS_ALWAYS, NEEDS_POSITIONS, NEEDS_TYPES, NEEDS_EMBED_NORM,
    NEEDS_ROTARY, NEEDS_IN_TURN, NEEDS_SECOND_NORM, NEEDS_GATED,
    NEEDS_POST_NORM, NEEDS_FINAL_NORM,
    NEEDS_POOLER, NEEDS_NEXT_SENTENCE, NEEDS_MASKED, NEEDS_LOGITS
} needs;

const qkv_site_info qkv_sites[QKV_N_SITES] = {
#define QKV_SITE(id, site_name, site_level, site_shape, site_reach, what) \
    [QKV_SITE_##id] = {.name = (site_name), .level = QKV_##site_level, \
        .shape = QKV_SHAPE_##site_shape, .reach = QKV_REACH_##site_reach, \
        .needs = NEEDS_##what},
#include "model/site.def"
#undef QKV_SITE
};

bool qkv_site_is_there(qkv_site site, const qkv_stack *s)
{
    const qkv_config *c = &s->config;
    switch ((needs)qkv_sites[site].needs) {
    case NEEDS_ALWAYS:
        return true;
    case NEEDS_POSITIONS:
        return c->learned_positions;
    case NEEDS_TYPES:
        return c->n_types > 0;
    case NEEDS_EMBED_NORM:
        return c->embed_norm;
    case NEEDS_ROTARY:
        return c->rotary_dim > 0;
    case NEEDS_IN_TURN:         /* attention, then the MLP */
        return !c->parallel;
    case NEEDS_SECOND_NORM:
        return !c->shared_norm;
    case NEEDS_GATED:
        return c->gated;
    case NEEDS_POST_NORM:
        return c->layout == QKV_POST_NORM;
    case NEEDS_FINAL_NORM:
        return c->final_norm;
    case NEEDS_POOLER:
        return qkv_weight_is_there(&s->pooler.w);
    case NEEDS_NEXT_SENTENCE:
        return qkv_weight_is_there(&s->next_sentence.w);
    case NEEDS_MASKED:
        return qkv_weight_is_there(&s->mlm_dense.w);
    case NEEDS_LOGITS:          /* a sentence model has none */
        return c->head != QKV_HEAD_MASKED
            || qkv_weight_is_there(&s->mlm_dense.w);
    }
    return false;
}

void qkv_site_name(char *out, qkv_site site, int64_t layer)
{
    if (qkv_sites[site].level == QKV_BLOCK)
        snprintf(out, QKV_SITE_ROOM, "blocks.%lld.%s", (long long)layer,
                 qkv_sites[site].name);
    else
        snprintf(out, QKV_SITE_ROOM, "%s", qkv_sites[site].name);
}

int qkv_site_axes(int64_t size[2], const char *axis[2], qkv_site site,
                  const qkv_stack *s)
{
    const qkv_config *c = &s->config;
    int n = 0;
#define AXIS(name, count) (axis[n] = (name), size[n] = (count), n++)
    switch (qkv_sites[site].shape) {
    case QKV_SHAPE_MODEL:
    case QKV_SHAPE_POOLED:
        AXIS("d_model", c->d_model);
        break;
    case QKV_SHAPE_MLP:
        AXIS("d_mlp", c->d_mlp);
        break;
    case QKV_SHAPE_SCALE:
        AXIS("", 1);
        break;
    case QKV_SHAPE_HEADS:
        AXIS("head", c->n_heads);
        AXIS("d_head", c->d_head);
        break;
    case QKV_SHAPE_KV_HEADS:
        AXIS("kv_head", c->n_kv_heads);
        AXIS("d_head", c->d_head);
        break;
    case QKV_SHAPE_RESULT:
        AXIS("head", c->n_heads);
        AXIS("d_model", c->d_model);
        break;
    case QKV_SHAPE_VOCAB:
        AXIS("vocab", c->d_vocab);
        break;
    case QKV_SHAPE_PAIR:
        AXIS("", 2);
        break;
    case QKV_SHAPE_SCORES:
        break;
    }
#undef AXIS
    return n;
}

int64_t qkv_site_width(qkv_site site, const qkv_stack *s)
{
    int64_t size[2];
    const char *axis[2];
    const int n = qkv_site_axes(size, axis, site, s);
    int64_t width = n > 0;
    for (int i = 0; i < n; i++)
        width *= size[i];
    return width;
}

/* ---- names ---- */

/* "attn.hook_q" -> "attn.q"; out [QKV_SITE_ROOM]. */
static void drop_hook(char *out, const char *name)
{
    const char *hook = strstr(name, "hook_");
    const size_t before = hook != NULL ? (size_t)(hook - name) : strlen(name);
    snprintf(out, QKV_SITE_ROOM, "%.*s%s", (int)before, name,
             hook != NULL ? hook + 5 : "");
}

static const char *without_module(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL ? dot + 1 : name;
}

/* Is the last part of this name no other site's, so that it stands alone? A
 * site without a module comes before those with one ("resid_pre"). */
static bool is_unique(qkv_site site, const char *rest, const qkv_stack *s)
{
    for (int other = 0; other < QKV_N_SITES; other++) {
        char name[QKV_SITE_ROOM];
        drop_hook(name, qkv_sites[other].name);
        if (other != (int)site && qkv_site_is_there((qkv_site)other, s)
            && strcmp(without_module(name), rest) == 0)
            return false;
    }
    return true;
}

/* Does `name` mean this site in one of its short forms (or its full name
 * without the block)? */
static bool is_short_for(const char *name, qkv_site site, const qkv_stack *s)
{
    char dotted[QKV_SITE_ROOM];
    drop_hook(dotted, qkv_sites[site].name);
    if (strcmp(name, qkv_sites[site].name) == 0 || strcmp(name, dotted) == 0)
        return true;
    const char *rest = without_module(dotted);
    return strcmp(name, rest) == 0 && is_unique(site, rest, s);
}

/* The nearest names, short and full, for the error. */
static bool not_found(const qkv_stack *s, const char *name, qkv_error *err)
{
    char shorts[QKV_N_SITES][QKV_SITE_ROOM];
    const char *names[3 * QKV_N_SITES];
    size_t n = 0;
    const qkv_config *c = &s->config;
    long long layer;
    if (sscanf(name, "blocks.%lld.", &layer) == 1
        && (layer < 0 || layer >= c->n_layers))
        return qkv_fail(err, QKV_ENOTFOUND, "layer %lld of %lld in '%.64s': "
                        "layers run 0..%lld", layer, (long long)c->n_layers,
                        name, (long long)c->n_layers - 1);
    const char *asked = name;
    if (strncmp(name, "blocks.", 7) == 0 && strchr(name + 7, '.') != NULL)
        asked = strchr(name + 7, '.') + 1;
    for (int i = 0; i < QKV_N_SITES; i++) {
        if (!qkv_site_is_there((qkv_site)i, s))
            continue;
        drop_hook(shorts[i], qkv_sites[i].name);
        names[n++] = shorts[i];
        names[n++] = qkv_sites[i].name;
        if (is_unique((qkv_site)i, without_module(shorts[i]), s))
            names[n++] = without_module(shorts[i]);
    }
    const char *near = qkv_text_nearest(asked, names, n);
    if (near != NULL)
        return qkv_fail(err, QKV_ENOTFOUND, "no site matches '%.64s' in this "
                        "%s model; did you mean '%s'?", name, c->family, near);
    return qkv_fail(err, QKV_ENOTFOUND, "no site matches '%.64s' in this %s "
                    "model; m:sites() lists them all", name, c->family);
}

bool qkv_site_match(uint8_t *mark, uint8_t bit, const qkv_stack *s,
                    const char *pattern, qkv_error *err)
{
    bool any = false;
    for (int i = 0; i < QKV_N_SITES; i++) {
        const qkv_site site = (qkv_site)i;
        if (!qkv_site_is_there(site, s))
            continue;
        const bool every = is_short_for(pattern, site, s);
        const int64_t layers = qkv_sites[i].level == QKV_BLOCK
            ? s->config.n_layers : 1;
        for (int64_t layer = 0; layer < layers; layer++) {
            char name[QKV_SITE_ROOM];
            qkv_site_name(name, site, layer);
            if (every || qkv_text_match(pattern, name)) {
                mark[qkv_slot(site, layer)] |= bit;
                any = true;
            }
        }
    }
    return any || not_found(s, pattern, err);
}

bool qkv_site_find(qkv_site *site, int64_t *layer, const qkv_stack *s,
                   const char *name, qkv_error *err)
{
    long long number;
    int used = 0;
    if (sscanf(name, "blocks.%lld.%n", &number, &used) == 1 && used > 0
        && number >= 0 && number < s->config.n_layers) {
        for (int i = 0; i < QKV_N_SITES; i++) {
            if (qkv_sites[i].level == QKV_BLOCK
                && qkv_site_is_there((qkv_site)i, s)
                && strcmp(name + used, qkv_sites[i].name) == 0) {
                *site = (qkv_site)i;
                *layer = number;
                return true;
            }
        }
    }
    for (int i = 0; i < QKV_N_SITES; i++) {
        if (qkv_site_is_there((qkv_site)i, s)
            && is_short_for(name, (qkv_site)i, s)) {
            *site = (qkv_site)i;
            *layer = qkv_sites[i].level == QKV_BLOCK ? -1 : 0;
            return true;
        }
    }
    return not_found(s, name, err);
}
