/* NVIDIA's management library, as far as summidx asks it: answers are read from the file that FAKE_NVML names, at each
 * nvmlInit. Without the variable there is no driver. Lines, their fields separated by tabs (fake_nvml.py writes them):
 *
 *     gpu NAME TOTAL FREE MIG FAULT PROCESSES_FAULT
 *     process PID USED NAME_FAULT NAME          of the GPU above
 *
 * A fault is a return code of NVML (0: none). USED -1: not available.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define DRIVER_NOT_LOADED 9
#define MAX 16

struct memory { unsigned long long total, free, used; };
struct process { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };
struct named { struct process info; int fault; char name[256]; };
struct gpu { char name[96]; struct memory memory; unsigned mig; int fault, processes_fault, n; struct named all[MAX]; };

static struct gpu gpus[MAX];
static int count;

int nvmlInitWithFlags(unsigned flags)
{
    char line[1024];
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    (void)flags;
    count = 0;
    if (!file)
        return DRIVER_NOT_LOADED;
    memset(gpus, 0, sizeof gpus);
    while (fgets(line, sizeof line, file)) {
        struct gpu *gpu = &gpus[count];
        if (sscanf(line, "gpu\t%95[^\t]\t%llu\t%llu\t%u\t%d\t%d", gpu->name, &gpu->memory.total, &gpu->memory.free,
                   &gpu->mig, &gpu->fault, &gpu->processes_fault) == 6) {
            gpu->memory.used = gpu->memory.total - gpu->memory.free;
            count++;
        } else if (count) {
            struct gpu *last = &gpus[count - 1];
            struct named *named = &last->all[last->n];
            if (sscanf(line, "process\t%u\t%lld\t%d\t%255[^\n]", &named->info.pid, (long long *)&named->info.used,
                       &named->fault, named->name) == 4)
                last->n++;
        }
    }
    fclose(file);
    return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code)
{
    switch (code) {
    case 4: return "Insufficient Permissions";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    default: return "Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *n) { *n = count; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **gpu)
{
    if ((int)index >= count)
        return INVALID_ARGUMENT;
    *gpu = &gpus[index];
    return (*gpu)->fault;
}

int nvmlDeviceGetName(struct gpu *gpu, char *name, unsigned size)
{
    snprintf(name, size, "%s", gpu->name);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(struct gpu *gpu, struct memory *memory) { *memory = gpu->memory; return SUCCESS; }

int nvmlDeviceGetMigMode(struct gpu *gpu, unsigned *current, unsigned *pending)
{
    *current = *pending = gpu->mig;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct gpu *gpu, unsigned *n, struct process *infos)
{
    unsigned room = *n;
    if (gpu->processes_fault)
        return gpu->processes_fault;
    *n = gpu->n;
    if (room < (unsigned)gpu->n)
        return INSUFFICIENT_SIZE;
    for (int i = 0; i < gpu->n; i++)
        infos[i] = gpu->all[i].info;
    return SUCCESS;
}

int nvmlSystemGetProcessName(unsigned pid, char *name, unsigned size)
{
    for (int i = 0; i < count; i++)
        for (int j = 0; j < gpus[i].n; j++)
            if (gpus[i].all[j].info.pid == pid) {
                snprintf(name, size, "%s", gpus[i].all[j].name);
                return gpus[i].all[j].fault;
            }
    return NOT_FOUND;
}
