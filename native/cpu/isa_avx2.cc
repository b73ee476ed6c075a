// All kernels for processors with AVX2 and FMA.
#define REVNET_ISA avx2
#define REVNET_LANES 8
#include "cpu/kernels/run.h"

namespace revnet {
const CpuKernels kAvx2Kernels{"avx2", REVNET_LANES, avx2::workspaceBytes, avx2::runOp};
}
