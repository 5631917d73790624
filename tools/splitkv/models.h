/* Attention of models that people run, as words of the problem grammar.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * From the models' published configurations. A model with two kinds of layers is there three times:
 * as NAME/local, NAME/global and NAME, which is the latter. */
#ifndef SPLITKV_TOOL_MODELS_H
#define SPLITKV_TOOL_MODELS_H

#include <stddef.h>

typedef struct model_preset {
  const char *name;
  const char *words; /* heads, channels, scale, variants, causal */
} model_preset;

extern const model_preset model_presets[];
extern const size_t n_model_presets;

/* Lines of the help text: all names that are no layers of another. */
#define MODEL_NAMES_HELP                                                                           \
  "                   qwen3-0.6b, qwen3-1.7b, qwen3-4b, qwen3-8b, qwen3-14b,\n"                    \
  "                   qwen3-32b, llama-3.1-8b, llama-3.1-70b, mistral-7b,\n"                       \
  "                   phi-3, bloom-7b, deepseek-v3; of two kinds: gemma-2-9b,\n"                   \
  "                   gemma-3-27b, gpt-oss-20b, llama-4-scout\n"

#endif
