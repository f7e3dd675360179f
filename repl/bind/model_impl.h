/*
 * model_impl.h - what the bindings of tokenizer, model and run share
 *
 * Only the binding files of these and of what is asked of runs include this.
 */
#ifndef QKV_MODEL_IMPL_H
#define QKV_MODEL_IMPL_H
#include "model/run.h"
#include "repl/bind/bind.h"

#define QKV_MODEL "qkv.model"
#define QKV_RUN "qkv.run"
#define QKV_TOKENIZER "qkv.tokenizer"

/* ---- tokenizer.c ---- */
/* The model's tokenizer, or an error. */
const qkv_tokenizer *qkv_bind_model_tokenizer(lua_State *L, qkv_model *m);
/* t:tokens, text, pieces, token for a tokenizer at 1 that may be a model. */
const qkv_tokenizer *qkv_bind_tokenizer_at(lua_State *L, int index);
/* Push the bytes of ids as one string. */
void qkv_push_text(lua_State *L, const qkv_tokenizer *t, const int32_t *ids,
                   int64_t n);
/* One token: an id, or text that is one token; else an error. */
int32_t qkv_check_token(lua_State *L, int index, qkv_model *m);
/* Ids from a text (nothing is added), one id, a list or a tensor at `index`,
 * in a userdata (pushed). */
const int32_t *qkv_check_tokens(lua_State *L, int index, qkv_model *m,
                                int64_t *n);
/* The piece of an id, or "<id>" in a model without a tokenizer. */
void qkv_push_piece(lua_State *L, qkv_model *m, int32_t id);
/* Methods that tokenizers and models have alike. */
extern const qkv_bind_row qkv_token_methods[];

/* ---- model.c ---- */
qkv_model *qkv_check_model(lua_State *L, int index);
/* A userdata over m, with a reference of its own. */
void qkv_push_model(lua_State *L, qkv_model *m);
/* Push the full names of the slots that are marked, as a list. */
void qkv_push_site_names(lua_State *L, const qkv_stack *s,
                         const uint8_t *mark);
/* The same of all that a pattern matches. */
void qkv_push_sites(lua_State *L, const qkv_stack *s, const char *pattern);
/* The full names of all sites and the short ones: what Tab offers. */
void qkv_push_site_words(lua_State *L, const qkv_stack *s);

/* ---- input.c: from Lua's tables to a recipe ---- */
/* A recipe in a userdata (pushed), which frees what it still holds. */
qkv_recipe *qkv_push_recipe(lua_State *L, qkv_model *m);
/* Sequences from the value at `index`: text, ids, records, or a list of
 * these. `more`: room for so many more tokens. */
void qkv_recipe_input(lua_State *L, qkv_recipe *r, int index, bool special,
                      int64_t more);
/* Options edits, hooks of the table at `index`. */
void qkv_recipe_edits(lua_State *L, qkv_recipe *r, int index);
void qkv_recipe_hooks(lua_State *L, qkv_recipe *r, int index);
/* Option names: the strings stay on the stack's table; *list is a userdata's
 * (pushed). */
int64_t qkv_check_names(lua_State *L, int index, const char *const **list);
/* Option logits: "last", "all" or false. */
qkv_logits_wanted qkv_option_logits(lua_State *L, int index);

/* ---- run.c ---- */
typedef struct qkv_run_view {   /* what a "qkv.run" points at */
    qkv_run *run;
    int64_t seq;                /* -1: the whole batch */
} qkv_run_view;
/* Push a run, whose reference it takes; NULL raises err. */
int qkv_push_run(lua_State *L, qkv_run *r, int64_t seq, const qkv_error *err);
/* The run at `index` and its one sequence; a batch is an error. */
qkv_run *qkv_check_run(lua_State *L, int index, int64_t *seq);

/* ---- fork.c ---- */
extern const qkv_bind_row qkv_fork_methods[];

/* ---- generate.c ---- */
extern const qkv_bind_row qkv_generate_methods[];

#endif
