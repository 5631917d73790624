/* SPDX-License-Identifier: Apache-2.0 */
#include "models.h"

#define GEMMA2 "hq=16 hkv=8 d=256 scale=0.0625 softcap=50 causal"
/* The query is scaled by 1/sqrt(168), where d is 128. */
#define GEMMA3 "hq=32 hkv=16 d=128 scale=0.0771516785 causal"
#define GPT_OSS "hq=64 hkv=8 d=64 sinks causal"
#define LLAMA4 "hq=40 hkv=8 d=128 causal"

const model_preset model_presets[] = {
    {"qwen3-0.6b", "hq=16 hkv=8 d=128 causal"},
    {"qwen3-1.7b", "hq=16 hkv=8 d=128 causal"},
    {"qwen3-4b", "hq=32 hkv=8 d=128 causal"},
    {"qwen3-8b", "hq=32 hkv=8 d=128 causal"},
    {"qwen3-14b", "hq=40 hkv=8 d=128 causal"},
    {"qwen3-32b", "hq=64 hkv=8 d=128 causal"},
    {"llama-3.1-8b", "hq=32 hkv=8 d=128 causal"},
    {"llama-3.1-70b", "hq=64 hkv=8 d=128 causal"},
    {"mistral-7b", "hq=32 hkv=8 d=128 window=4096 causal"}, /* v0.1; later ones have no window */
    {"phi-3", "hq=32 hkv=32 d=96 window=2047 causal"},      /* mini, 4k */
    {"bloom-7b", "hq=32 hkv=32 d=128 alibi causal"},
    /* The latent cache of 512 + 64 channels; 1/sqrt(192), without the factor that its scaling of
     * positions (YaRN) puts on top. */
    {"deepseek-v3", "hq=128 hkv=1 d=576 dv=512 scale=0.0721687824 mla causal"},
    {"gemma-2-9b", GEMMA2},
    {"gemma-2-9b/global", GEMMA2},
    {"gemma-2-9b/local", GEMMA2 " window=4096"},
    {"gemma-3-27b", GEMMA3},
    {"gemma-3-27b/global", GEMMA3},
    {"gemma-3-27b/local", GEMMA3 " window=1024"},
    {"gpt-oss-20b", GPT_OSS},
    {"gpt-oss-20b/global", GPT_OSS},
    {"gpt-oss-20b/local", GPT_OSS " window=128"},
    {"llama-4-scout", LLAMA4}, /* without the factor of position that global layers put on Q */
    {"llama-4-scout/global", LLAMA4},
    {"llama-4-scout/local", LLAMA4 " chunk=8192"},
};
const size_t n_model_presets = sizeof model_presets / sizeof model_presets[0];
