// All kernels in four-lane vectors that the compiler maps to whatever the target has (SSE2, NEON).
#define REVNET_ISA portable
#define REVNET_LANES 4
#include "cpu/kernels/run.h"

namespace revnet {
const CpuKernels kPortableKernels{"portable", REVNET_LANES, portable::workspaceBytes, portable::runOp};
}
