// Every op on every backend, with random shapes and arbitrary contents, under the sanitizers: labels and indices that point
// anywhere, NaN, infinities and huge numbers must not lead an op outside its buffers or into undefined behaviour.
#include <limits>
#include <random>

#include "check.h"
#include "core/convolution.h"
#include "core/session.h"
#include "cpu/backend.h"

using namespace revnet;

namespace {

// The visitor of ops.h that invents a record: random numbers and shapes that fit each other where they can be known to, and a
// buffer of its own for every operand. What does not fit all the same, the plan refuses.
class Inventor {
 public:
  // `shapeKeeping`: all convolutions map c channels to c at stride 1, as in a reversible block.
  Inventor(std::mt19937& random, bool shapeKeeping) : random_(random), shapeKeeping_(shapeKeeping) {}

  std::vector<BufferSpec> buffers;

  void number(const char*, double& value) { value = std::uniform_real_distribution<double>(0, 1)(random_); }
  template <class T>
  void count(const char* name, T& value) {
    value = static_cast<T>(name == std::string_view("decayed") ? below(8) : 8 + below(40));
    if (name == std::string_view("padding")) value = static_cast<T>(below(5));
  }
  void dimension(const char* name, int& value, int = 0) {
    value = 1 + below(name == std::string_view("stride") ? 2 : 9);
    // Channels in twos, so that they can be split in halves, and even differences can be padded.
    if (name == std::string_view("c") || name == std::string_view("k")) value *= 2;
    if (name == std::string_view("k")) value += 16;  // not below c
  }
  void flag(const char*, bool& value) { value = below(2) == 0; }
  void convolution(const char*, Convolution& convolution) {
    const Convolution before = last_;
    if (before.n > 0) {
      convolution = {before.n, before.outH(), before.outW(), before.k, 0, 0, 1};
    } else {
      dimension("n", convolution.n);
      dimension("h", convolution.h);
      dimension("w", convolution.w);
      dimension("c", convolution.c);
      dimension("stride", convolution.stride);
    }
    convolution.k = 1 + below(20);
    convolution.kernel = 1 + 2 * below(3);
    if (shapeKeeping_) {
      convolution.k = convolution.c;
      convolution.stride = 1;
    }
    last_ = convolution;
  }

  void operand(const char* name, Operand& operand, Access, Types types, int64_t elements) {
    operand.id = static_cast<int32_t>(buffers.size());
    ElementType type = (types & kReal) ? ElementType::Real : (types & kIndex) ? ElementType::Index : ElementType::Byte;
    for (const ElementType other : {ElementType::Fixed, ElementType::Hidden, ElementType::Gradient})
      if ((types & bit(other)) && below(2) == 0) type = other;
    buffers.push_back({name, type, elements, Category::Data});
  }
  void optional(const char* name, Operand& operand, Access access, Types types, int64_t elements) {
    // Norms nearly always: most ops need theirs.
    if (below(4) > 0 || name == std::string_view("statistics")) this->operand(name, operand, access, types, elements);
  }
  template <class Elements>
  void operands(const char* name, std::vector<Operand>& operands, Access access, Types types, Elements elements) {
    operands.resize(layers_ > 0 ? layers_ - 1 : 1 + static_cast<size_t>(below(2)));
    for (size_t i = 0; i < operands.size(); ++i) operand(name, operands[i], access, types, elements(i));
  }
  template <class Entry, class Each>
  void list(const char* name, std::vector<Entry>& entries, Each each) {
    // F and G, and their gradients, have as many layers as the first of them; parts of a pool are none.
    const bool parts = name == std::string_view("parts");
    if (layers_ == 0 || parts) layers_ = 1 + static_cast<size_t>(below(parts ? 2 : 3));
    const bool gradient = std::string_view(name).find("radient") != std::string_view::npos;
    // G starts from F's input.
    if (name == std::string_view("g")) last_ = {first_.n, first_.h, first_.w, 0, first_.c, 1, 1};
    entries.resize(layers_);
    for (size_t i = 0; i < entries.size(); ++i) {
      each(entries[i], i);
      if (!gradient && !parts && i == 0 && name != std::string_view("g")) first_ = last_;
    }
    if (parts) layers_ = 0;
  }
  void sameType(Operand a, Operand b) { buffers[static_cast<size_t>(b.id)].type = buffers[static_cast<size_t>(a.id)].type; }
  int64_t split(int64_t elements, int, size_t parts) const { return elements / static_cast<int64_t>(parts); }

 private:
  int below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(random_); }

  std::mt19937& random_;
  bool shapeKeeping_;
  Convolution first_, last_;  // of the residual function being invented
  size_t layers_ = 0;         // of each residual function; 0: not known yet
};

template <size_t I = 0>
Op defaultOp(size_t index) {
  if constexpr (I + 1 == std::variant_size_v<Op>) {
    return std::variant_alternative_t<I, Op>{};
  } else {
    return index == I ? Op(std::variant_alternative_t<I, Op>{}) : defaultOp<I + 1>(index);
  }
}

// Ordinary values, with something wild here and there if `wild`.
HostArray contents(const BufferSpec& buffer, std::mt19937& random, bool wild) {
  const auto elements = static_cast<size_t>(buffer.elements);
  const auto chance = [&] { return wild && random() % 8 == 0; };
  switch (buffer.type) {
    case ElementType::Real:
    case ElementType::Hidden:
    case ElementType::Gradient: {
      const double wilds[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1e300, 1e30,
                              -0.0};
      std::vector<double> values(elements);
      for (double& value : values) value = chance() ? wilds[random() % 5] : std::normal_distribution<double>()(random);
      return values;
    }
    case ElementType::Fixed: {
      std::vector<double> values(elements);
      for (double& value : values) value = std::uniform_real_distribution<double>(-1, 1)(random) * (chance() ? 511.9 : 2);
      return values;
    }
    case ElementType::Index: {
      std::vector<int32_t> values(elements);
      for (int32_t& value : values) value = chance() ? static_cast<int32_t>(random()) : static_cast<int32_t>(random() % 8);
      return values;
    }
    case ElementType::Byte: break;
  }
  std::vector<uint8_t> values(elements);
  for (uint8_t& value : values) value = static_cast<uint8_t>(chance() ? random() : random() % 9);
  return values;
}

void sweep(const std::function<std::unique_ptr<Backend>()>& makeBackend, unsigned seed) {
  std::mt19937 random(seed);
  const std::atomic<bool> cancelled{false};
  for (size_t index = 0; index < std::variant_size_v<Op>; ++index) {
    const std::string name(opName(defaultOp(index)));
    int ran = 0;
    for (int attempt = 0; attempt < 60 && ran < 12; ++attempt) {
      Op op = defaultOp(index);
      Inventor inventor(random, name.starts_with("reversible"));
      Session session(makeBackend(), true);
      size_t program = 0;
      try {
        std::visit([&](auto& record) { record.visit(inventor); }, op);
        for (const BufferSpec& buffer : inventor.buffers) session.addBuffer(buffer);
        program = session.addProgram({}, {op});
      } catch (const Error&) {
        continue;  // shapes that do not go together
      }
      for (size_t id = 0; id < inventor.buffers.size(); ++id)
        session.write(id, contents(inventor.buffers[id], random, ran % 2 == 1));
      session.run(program, {}, {}, cancelled);
      ++ran;
    }
    if (ran < 6) test::fail(__FILE__, __LINE__, name + " ran only " + std::to_string(ran) + " times");
  }
}

}  // namespace

TEST(everyOpStaysInBoundsOnReference) { sweep(makeReferenceBackend, 1); }

TEST(everyOpStaysInBoundsOnCpu) {
  for (const std::string& isa : cpuInstructionSets())
    for (const int threads : {1, 3}) sweep([&] { return makeCpuBackend(threads, isa); }, 2);
}

#if defined(REVNET_EMULATED)
void sweepEmulated(Precision precision) {
  sweep([&] { return makeCudaBackend(0, precision, precision == Precision::Bfloat16 ? precision : Precision::Float32); }, 3);
}
TEST(everyOpStaysInBoundsOnEmulatedCudaInFloat32) { sweepEmulated(Precision::Float32); }
TEST(everyOpStaysInBoundsOnEmulatedCudaInTf32) { sweepEmulated(Precision::Tf32); }
TEST(everyOpStaysInBoundsOnEmulatedCudaInBfloat16) { sweepEmulated(Precision::Bfloat16); }
#endif
