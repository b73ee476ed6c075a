// All kernels for arm64 processors, all of which have NEON.
#define REVNET_ISA neon
#define REVNET_REGISTERS "cpu/registers/neon.h"
#include "cpu/kernels/run.h"

namespace revnet {
const CpuKernels kNeonKernels{"neon", neon::workspaceBytes, neon::runOp};
}
