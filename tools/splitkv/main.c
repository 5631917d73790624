/* splitkv, the command-line tool: picks the command.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "problem_text.h"
#include "tool.h"

#include <stdio.h>
#include <string.h>

typedef struct command {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *arguments; /* as the usage line shows them */
  const char *summary;
  const char *help;
  /* Its help ends with these parts of the problem grammar, up to a NULL. */
  const char *grammar[2];
} command;

static const command commands[] = {
    {"info",
     cmd_info,
     "[--json]",
     "CPU, kernel sets, which one is chosen and why",
     cmd_info_help,
     {NULL}},
    {"plan",
     cmd_plan,
     "[--json] PROBLEM",
     "how a problem would run and the scratch memory it takes",
     cmd_plan_help,
     {problem_grammar_help}},
    {"check",
     cmd_check,
     "[--json] [--json-file FILE]\n"
     "                     [PROBLEM... | --suite NAME...] [WORD...]",
     "run and compare with a double-precision oracle",
     cmd_check_help,
     {problem_grammar_help}},
    {"bench",
     cmd_bench,
     "[--json] [--json-file FILE] [--plot FILE.svg]\n"
     "                     [--warm] [--small-pages] [--seconds S]\n"
     "                     [--vs PEER]... [--vs-timeout S]\n"
     "                     [PROBLEM... | --suite NAME...] [WORD...]",
     "time, bandwidth, fraction of the machine's roof, and error",
     cmd_bench_help,
     {problem_grammar_help}},
    {"run",
     cmd_run,
     "--q FILE --k FILE --v FILE --table FILE\n"
     "                   --kv-lens FILE --out FILE [OPTION...]",
     "attention on your own tensors",
     cmd_run_help,
     {NULL}},
    {"ascend",
     cmd_ascend,
     "plan [--words | --json] [--unchecked] PROBLEM\n"
     "       splitkv ascend explain [--json] [--svg FILE.svg] PROBLEM\n"
     "       splitkv ascend check [--json] [--json-file FILE] [--sizes WHICH]\n"
     "                     [--offsets-times-splits] [--mask-by-pointer]\n"
     "                     [--keep-empty-rows]\n"
     "                     [PROBLEM... | --suite NAME...] [WORD...]\n"
     "       splitkv ascend bench --kernel FILE.so [--runtime FILE.so]\n"
     "                     [--device N] [--launches N] [--json] [--json-file FILE]\n"
     "                     [PROBLEM... | --suite NAME...] [WORD...]\n"
     "       splitkv ascend run (--kernel FILE.so [--runtime FILE.so] | --model)\n"
     "                     --q FILE --k FILE --v FILE --table FILE\n"
     "                     --kv-lens FILE --out FILE [OPTION...]",
     "tiling, scratch memory and launch of the Ascend kernel, and its model",
     cmd_ascend_help,
     {problem_ascend_help, problem_grammar_help}},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static const char overview_tail[] =
    "  help [COMMAND]  this text, or the options of one command and the problem grammar\n"
    "\n"
    "A PROBLEM is a list of words such as\n"
    "  b=256 hq=16 hkv=1 d=128 page=128 kv=8192 dtype=f16\n"
    "in one quoted argument or several arguments; 'splitkv help plan' lists all words.\n"
    "\n"
    "Exit status: 0 all good, 1 a check failed, 2 bad usage or input, 3 not supported here.\n";

static const command *find_command(const char *name) {
  for (int i = 0; i < N_COMMANDS; i++) {
    if (strcmp(commands[i].name, name) == 0) {
      return &commands[i];
    }
  }
  return NULL;
}

static void print_overview(void) {
  printf("splitkv %s: paged attention on the CPU\n\n", splitkv_version());
  printf("usage: splitkv COMMAND [ARGUMENT...]\n\n");
  for (int i = 0; i < N_COMMANDS; i++) {
    printf("  %-14s  %s\n", commands[i].name, commands[i].summary);
  }
  fputs(overview_tail, stdout);
}

static int unknown_command(const char *name) {
  const char *names[N_COMMANDS + 1];
  for (int i = 0; i < N_COMMANDS; i++) {
    names[i] = commands[i].name;
  }
  names[N_COMMANDS] = "help";
  const char *near = tool_near_word(name, names, N_COMMANDS + 1);
  if (near) {
    return tool_usage_error("unknown command '%s': did you mean '%s'?", name, near);
  }
  return tool_usage_error("unknown command '%s': 'splitkv help' lists the commands", name);
}

int tool_print_help(const char *command_name) {
  const command *entry = find_command(command_name);
  if (!entry) {
    return unknown_command(command_name);
  }
  printf("usage: splitkv %s %s\n\n%s", entry->name, entry->arguments, entry->help);
  for (size_t i = 0; i < sizeof entry->grammar / sizeof *entry->grammar; i++) {
    if (entry->grammar[i]) {
      printf("\n%s", entry->grammar[i]);
    }
  }
  return TOOL_OK;
}

static int help(int argc, char **argv) {
  if (argc > 1) {
    return tool_usage_error("help takes one command, not %d", argc);
  }
  if (argc == 1) {
    return tool_print_help(argv[0]);
  }
  print_overview();
  return TOOL_OK;
}

/* A full disk or a closed pipe must not look like success. */
static int finish(int status) {
  int failed = ferror(stdout);
  failed |= fflush(stdout) != 0;
  return failed && status == TOOL_OK ? tool_usage_error("cannot write to stdout") : status;
}

int main(int argc, char **argv) {
  tool_fill_standard_descriptors();
  if (argc < 2) {
    return tool_usage_error("needs a command: try 'splitkv help'");
  }
  const char *name = argv[1];
  if (strcmp(name, "--version") == 0) {
    printf("splitkv %s\n", splitkv_version());
    return finish(TOOL_OK);
  }
  if (strcmp(name, "help") == 0 || tool_is_help(name)) {
    return finish(help(argc - 2, argv + 2));
  }
  const command *entry = find_command(name);
  if (!entry) {
    return unknown_command(name);
  }
  for (int i = 2; i < argc; i++) {
    if (tool_is_help(argv[i])) {
      return finish(tool_print_help(name));
    }
  }
  return finish(entry->run(argc - 2, argv + 2));
}
