/* splitkv info: the machine and the kernel sets.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include "machine.h"
#include "models.h"
#include "table.h"
#include "tool.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

const char cmd_info_help[] =
    "Shows the CPU, the kernel sets of this build, what each needs, what this CPU or\n"
    "operating system lacks of it, and which one is chosen where nobody forces one.\n"
    "\n"
    "  --json  one JSON object instead, which also has the names that model= takes\n";

static const table_column columns[] = {
    {"kernel set", 0, 1}, {"arithmetic", 0, 1}, {"needs", 35, 1}, {"here", 0, 1}};
enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

static int get_kernel_set(int64_t index, splitkv_kernel_set_info *info) {
  splitkv_error error = {0};
  *info = (splitkv_kernel_set_info){.struct_size = sizeof *info};
  splitkv_status status = splitkv_kernel_set_get(index, info, &error);
  return status == SPLITKV_OK ? TOOL_OK : tool_library_error("info", status, &error);
}

/* "chosen: the best that is usable here", "usable", "lacks AVX512F". */
static void describe_use(const splitkv_kernel_set_info *info, char *text, size_t capacity) {
  if (info->is_default) {
    snprintf(text, capacity, "chosen: the best that is usable here");
  } else if (info->is_usable) {
    int is_default_class = strcmp(info->arithmetic, "f32") == 0;
    snprintf(text, capacity, "usable: %s%s", is_default_class ? "isa=" : "arithmetic=",
             is_default_class ? info->name : info->arithmetic);
  } else {
    snprintf(text, capacity, "lacks %s", info->missing);
  }
}

static int print_for_people(void) {
  char cache[32];
  table_bytes_text((double)machine_cache_bytes(), cache, sizeof cache);
  printf("splitkv      %s\n", splitkv_version());
  printf("CPU          %s\n", machine_cpu_name());
  printf("CPUs         %lld\n", (long long)machine_n_cpus());
  if (machine_cpu_quota() > 0) {
    printf("CPU quota    %.2f CPUs, from the control group\n", machine_cpu_quota());
  } else {
    printf("CPU quota    none\n");
  }
  printf("threads      %lld, where a problem does not say\n", (long long)machine_default_threads());
  printf("last cache   %s\n\n", machine_cache_bytes() ? cache : "unknown");
  table_header(columns, N_COLUMNS);
  for (int64_t i = 0; i < splitkv_kernel_set_count(); i++) {
    splitkv_kernel_set_info info;
    int failed = get_kernel_set(i, &info);
    if (failed) {
      return failed;
    }
    char use[160];
    describe_use(&info, use, sizeof use);
    const char *cells[N_COLUMNS] = {info.name, info.arithmetic, *info.needs ? info.needs : "-",
                                    use};
    table_row(columns, N_COLUMNS, cells);
  }
  return TOOL_OK;
}

static int add_kernel_sets(cJSON *report) {
  cJSON *list = cJSON_AddArrayToObject(report, "kernel_sets");
  for (int64_t i = 0; i < splitkv_kernel_set_count(); i++) {
    splitkv_kernel_set_info info;
    int failed = get_kernel_set(i, &info);
    if (failed) {
      return failed;
    }
    cJSON *entry = cJSON_CreateObject();
    cJSON_AddItemToArray(list, entry);
    cJSON_AddStringToObject(entry, "name", info.name);
    cJSON_AddStringToObject(entry, "arithmetic", info.arithmetic);
    cJSON_AddStringToObject(entry, "needs", info.needs);
    cJSON_AddStringToObject(entry, "missing", info.missing);
    cJSON_AddBoolToObject(entry, "usable", info.is_usable);
    cJSON_AddBoolToObject(entry, "default", info.is_default);
    if (info.is_default) {
      cJSON_AddStringToObject(report, "kernel_set", info.name);
    }
  }
  return TOOL_OK;
}

static void add_models(cJSON *report) {
  cJSON *list = cJSON_AddArrayToObject(report, "models");
  for (size_t i = 0; i < n_model_presets; i++) {
    cJSON_AddItemToArray(list, cJSON_CreateString(model_presets[i].name));
  }
}

static int print_for_machines(void) {
  cJSON *report = tool_json_report("info");
  cJSON_AddNumberToObject(report, "cpus", (double)machine_n_cpus());
  double quota = machine_cpu_quota();
  if (quota > 0) {
    cJSON_AddNumberToObject(report, "cpu_quota", quota);
  } else {
    cJSON_AddNullToObject(report, "cpu_quota");
  }
  cJSON_AddNumberToObject(report, "default_threads", (double)machine_default_threads());
  cJSON_AddNumberToObject(report, "cache_bytes", (double)machine_cache_bytes());
  add_models(report);
  int status = add_kernel_sets(report);
  status = status ? status : tool_print_json(report);
  cJSON_Delete(report);
  return status;
}

int cmd_info(int argc, char **argv) {
  int is_json = 0;
  for (int i = 0; i < argc; i++) {
    if (strcmp(argv[i], "--json") != 0) {
      return tool_usage_error("%.60s: info takes no argument but --json", argv[i]);
    }
    is_json = 1;
  }
  return is_json ? print_for_machines() : print_for_people();
}
