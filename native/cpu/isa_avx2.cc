// All kernels for processors with AVX2 and FMA.
#define REVNET_ISA avx2
#define REVNET_REGISTERS "cpu/registers/avx2.h"
#include "cpu/kernels/run.h"

namespace revnet {
const CpuKernels kAvx2Kernels{"avx2", avx2::workspaceBytes, avx2::runOp};
}
