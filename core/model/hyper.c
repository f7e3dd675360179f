/*
 * hyper.c - a stack's configuration from a file's facts: see hyper.h
 *
 * The synonyms of every key stand here, once: Hugging Face's config.json in
 * the dialects of transformers 4 and 5, and GGUF's metadata.
 */
#include "config.h"

#include "model/hyper.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "model/family.h"

static const struct {
    const char *names;          /* NULL: no such */
    const char *kernel;
} activations[] = {
#define QKV_ACTIVATION(id, fn, names) {names, #fn},
#include "model/activation.def"
#undef QKV_ACTIVATION
};

const char *qkv_activation_name(qkv_activation a)
{
    return activations[a].kernel;
}

/* Sizes: where they go, what files call them, and whether one must be there. */
static const struct {
    size_t offset;
    const char *names;
    bool must;
} sizes[] = {
#define SIZE(field, names, must) {offsetof(qkv_config, field), names, must}
    SIZE(n_layers, "num_hidden_layers|n_layer|n_layers|block_count", true),
    SIZE(d_model, "hidden_size|n_embd|dim|embedding_length", true),
    SIZE(n_heads, "num_attention_heads|n_head|n_heads|attention.head_count",
         true),
    SIZE(n_kv_heads, "num_key_value_heads|attention.head_count_kv", false),
    SIZE(d_head, "head_dim|attention.key_length", false),
    SIZE(d_mlp, "intermediate_size|n_inner|ffn_dim|hidden_dim"
         "|feed_forward_length", false),
    SIZE(d_vocab, "vocab_size", false),
    SIZE(n_ctx, "max_position_embeddings|n_positions|n_ctx|context_length",
         true),
    SIZE(n_types, "type_vocab_size|token_type_count", false),
#undef SIZE
};

#define EPS_KEYS "rms_norm_eps|layer_norm_epsilon|layer_norm_eps" \
    "|attention.layer_norm_rms_epsilon|attention.layer_norm_epsilon"
#define ROPE_BASE_KEYS "rope_parameters.rope_theta|rope_theta|rotary_emb_base" \
    "|rope.freq_base"
#define ROPE_TYPE_KEYS "rope_parameters.rope_type|rope_scaling.rope_type" \
    "|rope_scaling.type|rope.scaling.type"
#define ROPE_KEY(name) "rope_parameters." name "|rope_scaling." name

enum { MOST_LAYERS = 1 << 14, MOST_SIZE = 1 << 30 };

static const double PI2 = 6.283185307179586;

static bool read_sizes(qkv_config *c, const qkv_facts *f, qkv_error *err)
{
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int64_t value = 0;
        const qkv_fact *fact = qkv_facts_find(f, sizes[i].names);
        if (fact == NULL && sizes[i].must)
            return qkv_fail(err, QKV_EFORMAT, "%s has none of %s", f->source,
                            sizes[i].names);
        if (!qkv_facts_integer(&value, f, sizes[i].names, err))
            return false;
        if (fact != NULL && (value < 1 || value > MOST_SIZE))
            return qkv_fail(err, QKV_EFORMAT, "%s: %s is %lld, 1 to %d was "
                            "expected", f->source, fact->name,
                            (long long)value, MOST_SIZE);
        memcpy((char *)c + sizes[i].offset, &value, sizeof value);
    }
    if (c->n_layers > MOST_LAYERS)
        return qkv_fail(err, QKV_EFORMAT, "%s: %lld layers, at most %d were "
                        "expected", f->source, (long long)c->n_layers,
                        MOST_LAYERS);
    if (c->n_kv_heads == 0)
        c->n_kv_heads = c->n_heads;
    if (c->n_heads % c->n_kv_heads != 0)
        return qkv_fail(err, QKV_EFORMAT, "%s: %lld heads do not share %lld "
                        "key heads evenly", f->source, (long long)c->n_heads,
                        (long long)c->n_kv_heads);
    if (c->d_head == 0) {
        if (c->d_model % c->n_heads != 0)
            return qkv_fail(err, QKV_EFORMAT, "%s: width %lld is not a "
                            "multiple of %lld heads", f->source,
                            (long long)c->d_model, (long long)c->n_heads);
        c->d_head = c->d_model / c->n_heads;
    }
    if (c->d_mlp == 0)
        c->d_mlp = 4 * c->d_model;      /* GPT-2's n_inner null */
    return true;
}

static bool activation_named(qkv_activation *out, const char *name,
                             const qkv_facts *f, qkv_error *err)
{
    for (int a = 0; a < QKV_N_ACTIVATIONS; a++)
        if (qkv_text_is_one_of(activations[a].names, name)) {
            *out = (qkv_activation)a;
            return true;
        }
    return qkv_fail(err, QKV_EUNSUPPORTED, "%s: activation '%s' is not one of "
                    "relu, gelu, gelu_new, quick_gelu, silu, tanh", f->source,
                    name);
}

static bool read_activations(qkv_config *c, const qkv_family *family,
                             const qkv_facts *f, qkv_error *err)
{
    const char *name = family->activation;
    if (!qkv_facts_string(&name, f, "hidden_act|activation_function"
                          "|hidden_activation|activation", err)
        || !activation_named(&c->activation, name, f, err))
        return false;
    c->head_activation = c->activation;
    return family->head_activation == NULL
        || activation_named(&c->head_activation, family->head_activation, f,
                            err);
}

/* Where a table of learned positions starts, and what takes none. */
static bool read_positions(qkv_config *c, const qkv_family *family,
                           const qkv_facts *f, qkv_error *err)
{
    c->position_offset = family->position_offset;
    c->uncounted = -1;
    if (!family->skips_pads)
        return true;
    c->uncounted = 1;           /* transformers' pad_token_id of RoBERTa */
    if (!qkv_facts_integer(&c->uncounted, f, "pad_token_id", err))
        return false;
    if (c->uncounted < 0 || c->uncounted >= c->n_ctx - 1)
        return qkv_fail(err, QKV_EFORMAT, "%s: pad_token_id is %lld, positions "
                        "are counted from it and there are %lld", f->source,
                        (long long)c->uncounted, (long long)c->n_ctx);
    c->position_offset = c->uncounted + 1;
    c->n_ctx -= c->position_offset;     /* the file counts the table's rows */
    return true;
}

#define WINDOW_KEYS "sliding_window|attention.sliding_window"

static bool read_window(qkv_config *c, const qkv_family *family,
                        const qkv_facts *f, qkv_error *err)
{
    bool use = !family->window_is_optional;
    if (!family->windowed)
        return true;
    c->window = qkv_facts_is_null(f, WINDOW_KEYS) ? 0 : family->window;
    c->window_from = family->window_from;
    if (!qkv_facts_boolean(&use, f, "use_sliding_window", err)
        || !qkv_facts_integer(&c->window, f, WINDOW_KEYS, err)
        || !qkv_facts_integer(&c->window_from, f, "max_window_layers", err))
        return false;
    if (c->window < 0 || c->window_from < 0)
        return qkv_fail(err, QKV_EFORMAT, "%s: a window of %lld positions from "
                        "layer %lld on", f->source, (long long)c->window,
                        (long long)c->window_from);
    if (family->window_is_optional && !use)
        c->window = 0;
    return true;
}

bool qkv_config_window(int64_t *window, const qkv_config *c,
                       const qkv_facts *f, int64_t layer, qkv_error *err)
{
    char key[64];
    const char *type = NULL;
    snprintf(key, sizeof key, "layer_types.%lld", (long long)layer);
    if (!qkv_facts_string(&type, f, key, err))
        return false;
    const bool slides = type != NULL ? strcmp(type, "sliding_attention") == 0
        : layer >= c->window_from;
    if (type != NULL && !slides && strcmp(type, "full_attention") != 0)
        return qkv_fail(err, QKV_EUNSUPPORTED, "%s: %s is '%s', only "
                        "full_attention and sliding_attention are supported",
                        f->source, key, type);
    *window = slides ? c->window : 0;
    return true;
}

static bool read_rope_type(qkv_config *c, const qkv_facts *f, qkv_error *err)
{
    static const struct {
        const char *names;
        int type;
    } types[] = {
        /* dynamic: the base grows with texts longer than n_ctx, which are
         * refused. Phi-3's first files say "su" for longrope. */
        {"default|none|dynamic", QKV_ROPE_DEFAULT},
        {"linear", QKV_ROPE_LINEAR}, {"llama3", QKV_ROPE_LLAMA3},
        {"yarn", QKV_ROPE_YARN}, {"longrope|su", QKV_ROPE_LONG},
    };
    const char *type = "default";
    if (!qkv_facts_string(&type, f, ROPE_TYPE_KEYS, err))
        return false;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (qkv_text_is_one_of(types[i].names, type)) {
            memcpy(&c->rope_type, &types[i].type, sizeof c->rope_type);
            return true;
        }
    return qkv_fail(err, QKV_EUNSUPPORTED, "%s: rope scaling '%s' is not one "
                    "of default, linear, dynamic, llama3, yarn, longrope",
                    f->source, type);
}

static bool read_llama3(qkv_config *c, const qkv_facts *f, qkv_error *err)
{
    c->rope_low = 1;
    c->rope_high = 4;
    if (!qkv_facts_number(&c->rope_low, f, ROPE_KEY("low_freq_factor"), err)
        || !qkv_facts_number(&c->rope_high, f, ROPE_KEY("high_freq_factor"),
                             err))
        return false;
    return c->rope_high > c->rope_low
        || qkv_fail(err, QKV_EFORMAT, "%s: low_freq_factor %g must be below "
                    "high_freq_factor %g", f->source, c->rope_low,
                    c->rope_high);
}

/* The dimension that turns so many times within the original context. */
static double yarn_dimension(const qkv_config *c, double turns)
{
    return (double)c->rotary_dim * log(c->rope_original / (turns * PI2))
        / (2 * log(c->rotary_base));
}

static double yarn_scale(double factor, double by)
{
    return factor <= 1 ? 1 : 0.1 * by * log(factor) + 1;
}

static bool read_yarn(qkv_config *c, const qkv_facts *f, qkv_error *err)
{
    double fast = 32, slow = 1, scale = 0, scale_all = 0;
    bool whole = true;
    if (!qkv_facts_number(&fast, f, ROPE_KEY("beta_fast"), err)
        || !qkv_facts_number(&slow, f, ROPE_KEY("beta_slow"), err)
        || !qkv_facts_number(&scale, f, ROPE_KEY("mscale"), err)
        || !qkv_facts_number(&scale_all, f, ROPE_KEY("mscale_all_dim"), err)
        || !qkv_facts_boolean(&whole, f, ROPE_KEY("truncate"), err))
        return false;
    if (!(fast > 0) || !(slow > 0) || !(c->rotary_base > 1))
        return qkv_fail(err, QKV_EFORMAT, "%s: yarn's beta_fast %g and "
                        "beta_slow %g must be positive, rope_theta %g above 1",
                        f->source, fast, slow, c->rotary_base);
    const double low = yarn_dimension(c, fast), high = yarn_dimension(c, slow);
    c->rope_low = fmax(whole ? floor(low) : low, 0);
    c->rope_high = fmin(whole ? ceil(high) : high, (double)c->rotary_dim - 1);
    if (c->rope_low == c->rope_high)
        c->rope_high += 0.001;
    c->rotary_scale = scale != 0 && scale_all != 0
        ? yarn_scale(c->rope_factor, scale)
            / yarn_scale(c->rope_factor, scale_all)
        : yarn_scale(c->rope_factor, 1);
    return true;
}

void qkv_config_keep_short(qkv_config *c)
{
    if ((double)c->n_ctx > c->rope_original)
        c->n_ctx = (int64_t)c->rope_original;
}

static bool read_rotary(qkv_config *c, const qkv_family *family,
                        const qkv_facts *f, qkv_error *err)
{
    double share = family->rotary_share > 0 ? family->rotary_share : 1;
    int64_t dim = -1;
    c->rotary_base = 10000;
    c->rotary_scale = 1;
    c->rope_original = (double)c->n_ctx;
    if (!read_rope_type(c, f, err)
        || !qkv_facts_number(&c->rotary_base, f, ROPE_BASE_KEYS, err)
        || !qkv_facts_number(&share, f, ROPE_KEY("partial_rotary_factor")
                             "|partial_rotary_factor|rotary_pct", err)
        || !qkv_facts_integer(&dim, f, "rope.dimension_count", err)
        || !qkv_facts_number(&c->rope_original, f,
                             ROPE_KEY("original_max_position_embeddings")
                             "|original_max_position_embeddings"
                             "|rope.scaling.original_context_length", err))
        return false;
    /* as transformers does where no factor is given */
    c->rope_factor = (double)c->n_ctx / c->rope_original;
    if (!qkv_facts_number(&c->rope_factor, f, ROPE_KEY("factor")
                          "|rope.scaling.factor", err))
        return false;
    c->rotary_dim = dim >= 0 ? dim : (int64_t)((double)c->d_head * share);
    if (c->rotary_dim < 2 || c->rotary_dim > c->d_head
        || c->rotary_dim % 2 != 0)
        return qkv_fail(err, QKV_EFORMAT, "%s: %lld rotary dimensions of %lld, "
                        "a positive even number was expected", f->source,
                        (long long)c->rotary_dim, (long long)c->d_head);
    if (!(c->rotary_base > 0) || !(c->rope_factor > 0)
        || !(c->rope_original > 1))
        return qkv_fail(err, QKV_EFORMAT, "%s: rotary base %g and factor %g "
                        "must be positive, the original context %g above 1",
                        f->source, c->rotary_base, c->rope_factor,
                        c->rope_original);
    if ((c->rope_type == QKV_ROPE_LLAMA3 && !read_llama3(c, f, err))
        || (c->rope_type == QKV_ROPE_YARN && !read_yarn(c, f, err)))
        return false;
    if (c->rope_type == QKV_ROPE_LONG) {
        if (c->rope_factor > 1)
            c->rotary_scale = sqrt(1 + log(c->rope_factor)
                                   / log(c->rope_original));
        qkv_config_keep_short(c);
    }
    return qkv_facts_number(&c->rotary_scale, f, ROPE_KEY("attention_factor")
                            "|rope.scaling.attn_factor", err);
}

bool qkv_config_divisors(float *divisors, const qkv_config *c,
                         const qkv_facts *f, qkv_error *err)
{
    for (int64_t i = 0; i < c->rotary_dim / 2; i++) {
        char names[128];
        double value = 0;
        snprintf(names, sizeof names, ROPE_KEY("short_factor.%lld"),
                 (long long)i, (long long)i);
        if (!qkv_facts_number(&value, f, names, err))
            return false;
        if (!(value > 0))
            return qkv_fail(err, QKV_EFORMAT, "%s: longrope's short_factor "
                            "holds no positive number for each of %lld "
                            "frequencies", f->source,
                            (long long)c->rotary_dim / 2);
        divisors[i] = (float)value;
    }
    return true;
}

/* Does the file say otherwise than the family's "name=value" pairs? */
static bool check_musts(const char *musts, const qkv_facts *f, qkv_error *err)
{
    while (*musts != '\0') {
        char name[64], value[64], said[64];
        int used = 0;
        if (sscanf(musts, "%63[^=]=%63s%n", name, value, &used) != 2)
            return qkv_fail(err, QKV_EINVAL, "family table: '%s'", musts);
        musts += used + (musts[used] == ' ');
        const qkv_fact *fact = qkv_facts_find(f, name);
        if (fact == NULL)
            continue;
        if (fact->kind == QKV_FACT_STRING)
            snprintf(said, sizeof said, "%s", fact->string);
        else if (fact->kind == QKV_FACT_BOOLEAN)
            snprintf(said, sizeof said, "%s", fact->number != 0 ? "true"
                     : "false");
        else
            snprintf(said, sizeof said, "%g", fact->number);
        if (strcmp(said, value) != 0)
            return qkv_fail(err, QKV_EUNSUPPORTED, "%s: %s is %s, only %s is "
                            "supported", f->source, name, said, value);
    }
    return true;
}

bool qkv_config_read(qkv_config *c, const qkv_family *family,
                     const qkv_facts *f, qkv_error *err)
{
    *c = (qkv_config){
        .norm = family->norm, .layout = family->layout, .head = family->head,
        .causal = family->causal, .gated = family->gated,
        .learned_positions = family->learned_positions,
        .embed_norm = family->embed_norm, .final_norm = family->final_norm,
        .tied = family->tied, .eps = family->eps,
        .parallel = family->parallel, .shared_norm = family->shared_norm,
        .qk_norm = family->qk_norm,
    };
    snprintf(c->family, sizeof c->family, "%.*s",
             (int)strcspn(family->name, "|"), family->name);
    bool scale_weights = true, norm_first = c->layout == QKV_PRE_NORM;
    bool no_final_norm = false;
    if (!check_musts(family->must, f, err) || !read_sizes(c, f, err)
        || !read_activations(c, family, f, err)
        || !read_positions(c, family, f, err)
        || !read_window(c, family, f, err)
        || !qkv_facts_boolean(&norm_first, f, "do_layer_norm_before", err)
        || !qkv_facts_boolean(&no_final_norm, f, "_remove_final_layer_norm",
                              err)
        || !qkv_facts_boolean(&c->qk_norm, f, "qk_layernorm", err)
        || !qkv_facts_boolean(&c->parallel, f, "use_parallel_residual", err)
        || !qkv_facts_number(&c->eps, f, EPS_KEYS, err)
        || !qkv_facts_boolean(&c->tied, f, "tie_word_embeddings", err)
        || !qkv_facts_boolean(&scale_weights, f, "scale_attn_weights", err)
        || !qkv_facts_boolean(&c->scale_by_layer, f,
                              "scale_attn_by_inverse_layer_idx", err)
        || (family->rotary && !read_rotary(c, family, f, err)))
        return false;
    c->layout = norm_first ? QKV_PRE_NORM : QKV_POST_NORM;
    if (!norm_first || no_final_norm)
        c->final_norm = false;
    if (!family->token_types)
        c->n_types = 0;
    int64_t d_embed = c->d_model;
    if (!qkv_facts_integer(&d_embed, f, "word_embed_proj_dim", err))
        return false;
    if (d_embed != c->d_model)
        return qkv_fail(err, QKV_EUNSUPPORTED, "%s: word_embed_proj_dim is "
                        "%lld, only the hidden_size, %lld, is supported",
                        f->source, (long long)d_embed, (long long)c->d_model);
    if (!(c->eps >= 0) || c->eps > 1)
        return qkv_fail(err, QKV_EFORMAT, "%s: epsilon %g, 0 to 1 was "
                        "expected", f->source, c->eps);
    c->attn_scale = scale_weights ? 1 / sqrt((double)c->d_head) : 1;
    return true;
}

void qkv_config_rotary(float *freq, const qkv_config *c, const float *divisors)
{
    for (int64_t i = 0; i < c->rotary_dim / 2; i++) {
        double w = pow(c->rotary_base,
                       -2.0 * (double)i / (double)c->rotary_dim);
        if (divisors != NULL)
            w /= (double)divisors[i];
        if (c->rope_type == QKV_ROPE_LINEAR) {
            w /= c->rope_factor;
        } else if (c->rope_type == QKV_ROPE_LLAMA3) {
            /* turns within the original context: few are slowed down by the
             * factor, many are kept, a smooth mix between */
            const double turns = c->rope_original * w / PI2;
            double mix = (turns - c->rope_low) / (c->rope_high - c->rope_low);
            mix = mix < 0 ? 0 : mix > 1 ? 1 : mix;
            w *= mix + (1 - mix) / c->rope_factor;
        } else if (c->rope_type == QKV_ROPE_YARN) {
            double mix = ((double)i - c->rope_low)
                / (c->rope_high - c->rope_low);
            mix = mix < 0 ? 0 : mix > 1 ? 1 : mix;
            w *= 1 - mix + mix / c->rope_factor;
        }
        freq[i] = (float)w;
    }
}
