/*
 * family.c - the two tables of architectures: see family.h
 *
 * Facts are from the reference implementations (Hugging Face transformers'
 * modeling files and the gguf package's tensor names), checked by the oracles
 * in tests/oracle.
 */
#include "config.h"

#include "model/family.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

static const qkv_family families[] = {
    {
        .name = "llama", .norm = QKV_NORM_RMS, .layout = QKV_PRE_NORM,
        .head = QKV_HEAD_UNEMBED, .causal = true, .gated = true,
        .rotary = true, .final_norm = true, .activation = "silu", .eps = 1e-6,
        .must = "",
    },
    {
        .name = "mistral", .norm = QKV_NORM_RMS, .layout = QKV_PRE_NORM,
        .head = QKV_HEAD_UNEMBED, .causal = true, .gated = true,
        .rotary = true, .final_norm = true, .windowed = true, .window = 4096,
        .activation = "silu", .eps = 1e-6, .must = "",
    },
    {
        .name = "qwen2", .norm = QKV_NORM_RMS, .layout = QKV_PRE_NORM,
        .head = QKV_HEAD_UNEMBED, .causal = true, .gated = true,
        .rotary = true, .final_norm = true, .windowed = true,
        .window_is_optional = true, .window = 4096, .window_from = 28,
        .activation = "silu", .eps = 1e-6, .must = "",
    },
    {
        .name = "qwen3", .norm = QKV_NORM_RMS, .layout = QKV_PRE_NORM,
        .head = QKV_HEAD_UNEMBED, .causal = true, .gated = true,
        .rotary = true, .final_norm = true, .qk_norm = true, .windowed = true,
        .window_is_optional = true, .window = 4096, .window_from = 28,
        .activation = "silu", .eps = 1e-6, .must = "",
    },
    {
        .name = "phi3", .norm = QKV_NORM_RMS, .layout = QKV_PRE_NORM,
        .head = QKV_HEAD_UNEMBED, .causal = true, .gated = true,
        .rotary = true, .final_norm = true, .windowed = true,
        .activation = "silu", .eps = 1e-5, .must = "",
    },
    {
        .name = "gpt_neox|gptneox", .norm = QKV_NORM_LAYER,
        .layout = QKV_PRE_NORM, .head = QKV_HEAD_UNEMBED, .causal = true,
        .rotary = true, .rotary_share = 0.25, .final_norm = true,
        .parallel = true, .activation = "gelu", .eps = 1e-5, .must = "",
    },
    {
        .name = "phi|phi2", .norm = QKV_NORM_LAYER, .layout = QKV_PRE_NORM,
        .head = QKV_HEAD_UNEMBED, .causal = true, .rotary = true,
        .rotary_share = 0.5, .final_norm = true, .parallel = true,
        .shared_norm = true, .activation = "gelu_new", .eps = 1e-5,
        .must = "",
    },
    {
        .name = "opt", .norm = QKV_NORM_LAYER, .layout = QKV_PRE_NORM,
        .head = QKV_HEAD_UNEMBED, .causal = true, .learned_positions = true,
        .position_offset = 2, .final_norm = true, .tied = true,
        .activation = "relu", .eps = 1e-5,
        .must = "layer_norm_elementwise_affine=true",
    },
    {
        .name = "gpt2", .norm = QKV_NORM_LAYER, .layout = QKV_PRE_NORM,
        .head = QKV_HEAD_UNEMBED, .causal = true, .learned_positions = true,
        .final_norm = true, .tied = true, .activation = "gelu_new",
        .eps = 1e-5, .must = "add_cross_attention=false",
    },
    {
        .name = "bert", .norm = QKV_NORM_LAYER, .layout = QKV_POST_NORM,
        .head = QKV_HEAD_MASKED, .learned_positions = true,
        .token_types = true, .embed_norm = true, .tied = true,
        .activation = "gelu", .eps = 1e-12,
        .must = "position_embedding_type=absolute is_decoder=false "
            "add_cross_attention=false",
    },
    {
        .name = "roberta", .norm = QKV_NORM_LAYER, .layout = QKV_POST_NORM,
        .head = QKV_HEAD_MASKED, .learned_positions = true,
        .skips_pads = true, .token_types = true, .embed_norm = true,
        .tied = true, .activation = "gelu", .head_activation = "gelu",
        .eps = 1e-12,
        .must = "position_embedding_type=absolute is_decoder=false "
            "add_cross_attention=false",
    },
    {
        .name = "distilbert", .norm = QKV_NORM_LAYER,
        .layout = QKV_POST_NORM, .head = QKV_HEAD_MASKED,
        .learned_positions = true, .embed_norm = true, .tied = true,
        .activation = "gelu", .eps = 1e-12, .must = "",
    },
};

/* A LayerNorm's gain was "gamma" in BERT's first files. */
#define GAIN(path) path ".weight|" path ".gamma"

/* Parts of GGUF's names, which are the same for most architectures. */
#define GGUF_ENDS                                                       \
    [QKV_ROLE_EMBED] = "token_embd.weight",                             \
    [QKV_ROLE_LN_FINAL] = "output_norm.weight",                         \
    [QKV_ROLE_UNEMBED] = "output.weight"
#define GGUF_BLOCK                                                      \
    [QKV_ROLE_LN1] = "blk.%d.attn_norm.weight",                         \
    [QKV_ROLE_O] = "blk.%d.attn_output.weight",                         \
    [QKV_ROLE_LN2] = "blk.%d.ffn_norm.weight",                          \
    [QKV_ROLE_OUT] = "blk.%d.ffn_down.weight"
#define GGUF_QKV                                                        \
    [QKV_ROLE_Q] = "blk.%d.attn_q.weight",                              \
    [QKV_ROLE_K] = "blk.%d.attn_k.weight",                              \
    [QKV_ROLE_V] = "blk.%d.attn_v.weight"
#define GGUF_FUSED_QKV [QKV_ROLE_Q] = "blk.%d.attn_qkv.weight"
#define GGUF_UP [QKV_ROLE_IN] = "blk.%d.ffn_up.weight"
#define GGUF_GATED GGUF_UP, [QKV_ROLE_GATE] = "blk.%d.ffn_gate.weight"

/* BERT's encoder in Hugging Face's names, and RoBERTa's. */
#define BERT_ENCODER                                                    \
    [QKV_ROLE_EMBED] = "~embeddings.word_embeddings.weight",            \
    [QKV_ROLE_POSITIONS] = "~embeddings.position_embeddings.weight",    \
    [QKV_ROLE_TYPES] = "~embeddings.token_type_embeddings.weight",      \
    [QKV_ROLE_EMBED_NORM] = GAIN("~embeddings.LayerNorm"),              \
    [QKV_ROLE_Q] = "~encoder.layer.%d.attention.self.query.weight",     \
    [QKV_ROLE_K] = "~encoder.layer.%d.attention.self.key.weight",       \
    [QKV_ROLE_V] = "~encoder.layer.%d.attention.self.value.weight",     \
    [QKV_ROLE_O] = "~encoder.layer.%d.attention.output.dense.weight",   \
    [QKV_ROLE_LN1] = GAIN("~encoder.layer.%d.attention.output.LayerNorm"), \
    [QKV_ROLE_IN] = "~encoder.layer.%d.intermediate.dense.weight",      \
    [QKV_ROLE_OUT] = "~encoder.layer.%d.output.dense.weight",           \
    [QKV_ROLE_LN2] = GAIN("~encoder.layer.%d.output.LayerNorm"),        \
    [QKV_ROLE_POOLER] = "~pooler.dense.weight"

static const qkv_dialect dialects[] = {
    {
        .family = "llama|mistral|qwen2|qwen3", .format = QKV_FORMAT_HF,
        .prefixes = "model.|",
        .name = {
            [QKV_ROLE_EMBED] = "~embed_tokens.weight",
            [QKV_ROLE_LN1] = "~layers.%d.input_layernorm.weight",
            [QKV_ROLE_Q] = "~layers.%d.self_attn.q_proj.weight",
            [QKV_ROLE_K] = "~layers.%d.self_attn.k_proj.weight",
            [QKV_ROLE_V] = "~layers.%d.self_attn.v_proj.weight",
            [QKV_ROLE_Q_NORM] = "~layers.%d.self_attn.q_norm.weight",
            [QKV_ROLE_K_NORM] = "~layers.%d.self_attn.k_norm.weight",
            [QKV_ROLE_O] = "~layers.%d.self_attn.o_proj.weight",
            [QKV_ROLE_LN2] = "~layers.%d.post_attention_layernorm.weight",
            [QKV_ROLE_GATE] = "~layers.%d.mlp.gate_proj.weight",
            [QKV_ROLE_IN] = "~layers.%d.mlp.up_proj.weight",
            [QKV_ROLE_OUT] = "~layers.%d.mlp.down_proj.weight",
            [QKV_ROLE_LN_FINAL] = "~norm.weight",
            [QKV_ROLE_UNEMBED] = "lm_head.weight",
        },
    },
    {
        .family = "llama", .format = QKV_FORMAT_GGUF, .prefixes = "",
        .pairs = true,
        .name = {
            GGUF_ENDS, GGUF_BLOCK, GGUF_QKV, GGUF_GATED,
            [QKV_ROLE_ROPE_FREQS] = "rope_freqs.weight",
        },
    },
    {
        .family = "qwen2|qwen3", .format = QKV_FORMAT_GGUF, .prefixes = "",
        .name = {
            GGUF_ENDS, GGUF_BLOCK, GGUF_QKV, GGUF_GATED,
            [QKV_ROLE_Q_NORM] = "blk.%d.attn_q_norm.weight",
            [QKV_ROLE_K_NORM] = "blk.%d.attn_k_norm.weight",
            [QKV_ROLE_ROPE_FREQS] = "rope_freqs.weight",
        },
    },
    {
        .family = "phi3", .format = QKV_FORMAT_HF, .prefixes = "model.|",
        .fusion = QKV_STACKED, .fused_gate = true,
        .name = {
            [QKV_ROLE_EMBED] = "~embed_tokens.weight",
            [QKV_ROLE_LN1] = "~layers.%d.input_layernorm.weight",
            [QKV_ROLE_Q] = "~layers.%d.self_attn.qkv_proj.weight",
            [QKV_ROLE_O] = "~layers.%d.self_attn.o_proj.weight",
            [QKV_ROLE_LN2] = "~layers.%d.post_attention_layernorm.weight",
            [QKV_ROLE_GATE] = "~layers.%d.mlp.gate_up_proj.weight",
            [QKV_ROLE_OUT] = "~layers.%d.mlp.down_proj.weight",
            [QKV_ROLE_LN_FINAL] = "~norm.weight",
            [QKV_ROLE_UNEMBED] = "lm_head.weight",
        },
    },
    {
        .family = "phi3", .format = QKV_FORMAT_GGUF, .prefixes = "",
        .fusion = QKV_STACKED, .fused_gate = true,
        .name = {
            GGUF_ENDS, GGUF_BLOCK, GGUF_FUSED_QKV,
            [QKV_ROLE_GATE] = "blk.%d.ffn_up.weight",
            [QKV_ROLE_ROPE_SHORT] = "rope_factors_short.weight",
        },
    },
    {
        .family = "gpt_neox", .format = QKV_FORMAT_HF,
        .prefixes = "gpt_neox.|", .fusion = QKV_BY_HEAD,
        .name = {
            [QKV_ROLE_EMBED] = "~embed_in.weight",
            [QKV_ROLE_LN1] = "~layers.%d.input_layernorm.weight",
            [QKV_ROLE_Q] = "~layers.%d.attention.query_key_value.weight",
            [QKV_ROLE_O] = "~layers.%d.attention.dense.weight",
            [QKV_ROLE_LN2] = "~layers.%d.post_attention_layernorm.weight",
            [QKV_ROLE_IN] = "~layers.%d.mlp.dense_h_to_4h.weight",
            [QKV_ROLE_OUT] = "~layers.%d.mlp.dense_4h_to_h.weight",
            [QKV_ROLE_LN_FINAL] = "~final_layer_norm.weight",
            [QKV_ROLE_UNEMBED] = "embed_out.weight",
        },
    },
    {
        .family = "gpt_neox", .format = QKV_FORMAT_GGUF, .prefixes = "",
        .fusion = QKV_STACKED,
        .name = {
            GGUF_ENDS, GGUF_BLOCK, GGUF_FUSED_QKV, GGUF_UP,
        },
    },
    {
        .family = "phi", .format = QKV_FORMAT_HF, .prefixes = "model.|",
        .name = {
            [QKV_ROLE_EMBED] = "~embed_tokens.weight",
            [QKV_ROLE_LN1] = "~layers.%d.input_layernorm.weight",
            [QKV_ROLE_Q] = "~layers.%d.self_attn.q_proj.weight",
            [QKV_ROLE_K] = "~layers.%d.self_attn.k_proj.weight",
            [QKV_ROLE_V] = "~layers.%d.self_attn.v_proj.weight",
            [QKV_ROLE_Q_NORM] = "~layers.%d.self_attn.q_layernorm.weight",
            [QKV_ROLE_K_NORM] = "~layers.%d.self_attn.k_layernorm.weight",
            [QKV_ROLE_O] = "~layers.%d.self_attn.dense.weight",
            [QKV_ROLE_IN] = "~layers.%d.mlp.fc1.weight",
            [QKV_ROLE_OUT] = "~layers.%d.mlp.fc2.weight",
            [QKV_ROLE_LN_FINAL] = "~final_layernorm.weight",
            [QKV_ROLE_UNEMBED] = "lm_head.weight",
        },
    },
    {
        .family = "phi", .format = QKV_FORMAT_GGUF, .prefixes = "",
        .name = {
            GGUF_ENDS, GGUF_BLOCK, GGUF_QKV, GGUF_UP,
        },
    },
    {
        .family = "opt", .format = QKV_FORMAT_HF,
        .prefixes = "model.decoder.|decoder.|",
        .name = {
            [QKV_ROLE_EMBED] = "~embed_tokens.weight",
            [QKV_ROLE_POSITIONS] = "~embed_positions.weight",
            [QKV_ROLE_LN1] = "~layers.%d.self_attn_layer_norm.weight",
            [QKV_ROLE_Q] = "~layers.%d.self_attn.q_proj.weight",
            [QKV_ROLE_K] = "~layers.%d.self_attn.k_proj.weight",
            [QKV_ROLE_V] = "~layers.%d.self_attn.v_proj.weight",
            [QKV_ROLE_O] = "~layers.%d.self_attn.out_proj.weight",
            [QKV_ROLE_LN2] = "~layers.%d.final_layer_norm.weight",
            [QKV_ROLE_IN] = "~layers.%d.fc1.weight",
            [QKV_ROLE_OUT] = "~layers.%d.fc2.weight",
            [QKV_ROLE_LN_FINAL] = "~final_layer_norm.weight",
            [QKV_ROLE_UNEMBED] = "lm_head.weight",
        },
    },
    {
        .family = "gpt2", .format = QKV_FORMAT_HF, .prefixes = "transformer.|",
        .transposed = true, .fusion = QKV_STACKED,
        .name = {
            [QKV_ROLE_EMBED] = "~wte.weight",
            [QKV_ROLE_POSITIONS] = "~wpe.weight",
            [QKV_ROLE_LN1] = "~h.%d.ln_1.weight",
            [QKV_ROLE_Q] = "~h.%d.attn.c_attn.weight",
            [QKV_ROLE_O] = "~h.%d.attn.c_proj.weight",
            [QKV_ROLE_LN2] = "~h.%d.ln_2.weight",
            [QKV_ROLE_IN] = "~h.%d.mlp.c_fc.weight",
            [QKV_ROLE_OUT] = "~h.%d.mlp.c_proj.weight",
            [QKV_ROLE_LN_FINAL] = "~ln_f.weight",
            [QKV_ROLE_UNEMBED] = "lm_head.weight",
        },
    },
    {
        .family = "gpt2", .format = QKV_FORMAT_GGUF, .prefixes = "",
        .fusion = QKV_STACKED,
        .name = {
            GGUF_ENDS, GGUF_BLOCK, GGUF_FUSED_QKV, GGUF_UP,
            [QKV_ROLE_POSITIONS] = "position_embd.weight",
        },
    },
    {
        .family = "bert", .format = QKV_FORMAT_HF, .prefixes = "bert.|",
        .name = {
            BERT_ENCODER,
            [QKV_ROLE_UNEMBED] = "cls.predictions.decoder.weight",
            [QKV_ROLE_MLM_DENSE] = "cls.predictions.transform.dense.weight",
            [QKV_ROLE_MLM_NORM] = GAIN("cls.predictions.transform.LayerNorm"),
            [QKV_ROLE_MLM_BIAS] = "cls.predictions.bias",
            [QKV_ROLE_NEXT_SENTENCE] = "cls.seq_relationship.weight",
        },
    },
    {
        .family = "bert", .format = QKV_FORMAT_GGUF, .prefixes = "",
        .name = {
            GGUF_QKV, GGUF_UP,
            [QKV_ROLE_EMBED] = "token_embd.weight",
            [QKV_ROLE_POSITIONS] = "position_embd.weight",
            [QKV_ROLE_TYPES] = "token_types.weight",
            [QKV_ROLE_EMBED_NORM] = "token_embd_norm.weight",
            [QKV_ROLE_O] = "blk.%d.attn_output.weight",
            [QKV_ROLE_LN1] = "blk.%d.attn_output_norm.weight",
            [QKV_ROLE_OUT] = "blk.%d.ffn_down.weight",
            [QKV_ROLE_LN2] = "blk.%d.layer_output_norm.weight",
        },
    },
    {
        .family = "roberta", .format = QKV_FORMAT_HF, .prefixes = "roberta.|",
        .name = {
            BERT_ENCODER,
            [QKV_ROLE_UNEMBED] = "lm_head.decoder.weight",
            [QKV_ROLE_MLM_DENSE] = "lm_head.dense.weight",
            [QKV_ROLE_MLM_NORM] = "lm_head.layer_norm.weight",
            [QKV_ROLE_MLM_BIAS] = "lm_head.bias|lm_head.decoder.bias",
        },
    },
    {
        .family = "distilbert", .format = QKV_FORMAT_HF,
        .prefixes = "distilbert.|",
        .name = {
            [QKV_ROLE_EMBED] = "~embeddings.word_embeddings.weight",
            [QKV_ROLE_POSITIONS] = "~embeddings.position_embeddings.weight",
            [QKV_ROLE_EMBED_NORM] = "~embeddings.LayerNorm.weight",
            [QKV_ROLE_Q] = "~transformer.layer.%d.attention.q_lin.weight",
            [QKV_ROLE_K] = "~transformer.layer.%d.attention.k_lin.weight",
            [QKV_ROLE_V] = "~transformer.layer.%d.attention.v_lin.weight",
            [QKV_ROLE_O] = "~transformer.layer.%d.attention.out_lin.weight",
            [QKV_ROLE_LN1] = "~transformer.layer.%d.sa_layer_norm.weight",
            [QKV_ROLE_IN] = "~transformer.layer.%d.ffn.lin1.weight",
            [QKV_ROLE_OUT] = "~transformer.layer.%d.ffn.lin2.weight",
            [QKV_ROLE_LN2] = "~transformer.layer.%d.output_layer_norm.weight",
            [QKV_ROLE_UNEMBED] = "vocab_projector.weight",
            [QKV_ROLE_MLM_DENSE] = "vocab_transform.weight",
            [QKV_ROLE_MLM_NORM] = "vocab_layer_norm.weight",
            [QKV_ROLE_MLM_BIAS] = "vocab_projector.bias",
        },
    },
};

const qkv_family *qkv_family_named(const char *name, qkv_error *err)
{
    char known[256] = "";
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (qkv_text_is_one_of(families[i].name, name))
            return &families[i];
        const size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%.*s",
                 i > 0 ? ", " : "", (int)strcspn(families[i].name, "|"),
                 families[i].name);
    }
    qkv_fail(err, QKV_EUNSUPPORTED, "architecture '%.64s' is not one of %s",
             name, known);
    return NULL;
}

const qkv_dialect *qkv_dialect_of(const qkv_family *family, qkv_format format,
                                  qkv_error *err)
{
    char first[32];
    snprintf(first, sizeof first, "%.*s", (int)strcspn(family->name, "|"),
             family->name);
    for (size_t i = 0; i < sizeof dialects / sizeof dialects[0]; i++)
        if (dialects[i].format == format
            && qkv_text_is_one_of(dialects[i].family, first))
            return &dialects[i];
    qkv_fail(err, QKV_EUNSUPPORTED, "%s models are not read from %s files",
             first, format == QKV_FORMAT_GGUF ? "GGUF"
             : "safetensors");
    return NULL;
}
