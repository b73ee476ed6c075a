// All kernels in plain C++, for processors without the instruction sets of the other units.
#define REVNET_ISA portable
#define REVNET_REGISTERS "cpu/registers/portable.h"
#include "cpu/kernels/run.h"

namespace revnet {
const CpuKernels kPortableKernels{"portable", portable::workspaceBytes, portable::runOp};
}
