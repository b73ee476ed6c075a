#include "op_reader.h"

#include <limits>
#include <type_traits>
#include <utility>

namespace revnet {
namespace {

constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max();

// The visitor of ops.h that fills a record in. `object_` is the object whose fields are being visited.
class RecordReader {
 public:
  explicit RecordReader(ObjectReader& object) : object_(&object) {}

  void number(const char* name, double& value) { value = object_->required(name).number(); }
  void count(const char* name, int& value) { value = static_cast<int>(object_->required(name).integer(0, kMaxRows)); }
  void count(const char* name, int64_t& value) { value = object_->required(name).integer(0, kMaxSafeInteger); }
  void dimension(const char* name, int& value, int most = kMaxRows) {
    value = static_cast<int>(object_->required(name).integer(1, most));
  }
  void flag(const char* name, bool& value) { value = object_->required(name).boolean(); }

  void convolution(const char* name, Convolution& convolution) {
    enter(object_->required(name), [&] {
      dimension("n", convolution.n);
      dimension("h", convolution.h, kMaxEdge);
      dimension("w", convolution.w, kMaxEdge);
      dimension("c", convolution.c, kMaxEdge);
      dimension("k", convolution.k, kMaxEdge);
      dimension("kernel", convolution.kernel, kMaxKernel);
      dimension("stride", convolution.stride, kMaxStride);
      if (convolution.kernel % 2 == 0) throw invalid(object_->path() + ".kernel: expected an odd number");
    });
  }

  // Access, types and sizes are the plan's business.
  void operand(const char* name, Operand& operand, Access, Types, int64_t) { operand = readOperand(object_->required(name)); }
  void optional(const char* name, Operand& operand, Access, Types, int64_t) {
    if (const auto field = object_->optional(name)) operand = readOperand(*field);
  }
  template <class Elements>
  void operands(const char* name, std::vector<Operand>& operands, Access, Types, Elements) {
    for (const Reader& entry : object_->required(name).list(kMaxRecordList)) operands.push_back(readOperand(entry));
  }
  template <class Entry, class Each>
  void list(const char* name, std::vector<Entry>& entries, Each each) {
    for (const Reader& entry : object_->required(name).list(kMaxRecordList)) {
      entries.emplace_back();
      enter(entry, [&] { each(entries.back(), entries.size() - 1); });
    }
  }
  void sameType(Operand, Operand) {}
  int64_t split(int64_t, int, size_t) { return 0; }

 private:
  static Operand readOperand(const Reader& reader) { return {static_cast<int32_t>(reader.integer(0, kMaxId))}; }

  // Visits the fields of an object inside this one.
  template <class Visit>
  void enter(const Reader& reader, Visit visit) {
    ObjectReader inner(reader);
    ObjectReader* const outer = std::exchange(object_, &inner);
    visit();
    inner.finish();
    object_ = outer;
  }

  ObjectReader* object_;
};

// The record called `name`, among the alternatives from number I on.
template <size_t I = 0>
Op makeOp(const std::string& name, const Reader& field) {
  if constexpr (I == std::variant_size_v<Op>) {
    throw field.expected("the name of an op");
  } else {
    using Record = std::variant_alternative_t<I, Op>;
    return name == Record::kName ? Op(Record{}) : makeOp<I + 1>(name, field);
  }
}

}  // namespace

Op readOp(const Reader& reader) {
  ObjectReader object(reader);
  const Reader name = object.required("op");
  Op op = makeOp(name.string(), name);
  try {
    RecordReader visitor(object);
    std::visit([&](auto& record) { record.visit(visitor); }, op);
    object.finish();
  } catch (const Error& error) {
    // The records' own checks do not know where they are.
    const std::string what = error.what();
    if (what.starts_with(reader.path())) throw Error(error.code(), what + " (" + std::string(opName(op)) + ")");
    throw Error(error.code(), reader.path() + " (" + std::string(opName(op)) + "): " + what);
  }
  return op;
}

BufferSpec readBuffer(const Reader& reader) {
  ObjectReader object(reader);
  BufferSpec buffer;
  buffer.name = object.required("name").string();
  buffer.type = static_cast<ElementType>(object.required("type").choice(kElementTypeNames));
  buffer.elements = object.required("elements").integer(1, kMaxSafeInteger);
  buffer.category = static_cast<Category>(object.required("category").choice(kCategoryNames));
  if (const auto parent = object.optional("parent")) buffer.parent = static_cast<int32_t>(parent->integer(0, kMaxId));
  if (const auto offset = object.optional("offset")) buffer.offset = offset->integer(0, kMaxSafeInteger);
  if (const auto pinned = object.optional("pinned")) buffer.pinned = pinned->boolean();
  object.finish();
  return buffer;
}

std::vector<BufferSpec> readBuffers(const Reader& reader) {
  std::vector<BufferSpec> buffers;
  for (const Reader& entry : reader.list(kMaxBuffers)) buffers.push_back(readBuffer(entry));
  return buffers;
}

uint64_t readSeed(const Reader& reader) {
  bool lossless = false;
  const uint64_t seed = reader.value().IsBigInt() ? reader.value().As<Napi::BigInt>().Uint64Value(&lossless) : 0;
  if (!lossless) throw reader.expected("a bigint from 0 to 2^64 - 1");
  return seed;
}

std::vector<InitialTensor> readInitialTensors(const Reader& reader) {
  std::vector<InitialTensor> tensors;
  for (const Reader& entry : reader.list(kMaxBuffers)) {
    ObjectReader object(entry);
    InitialTensor tensor;
    tensor.distribution = static_cast<Distribution>(object.required("distribution").choice(kDistributionNames));
    tensor.value = object.required("value").number();
    tensor.stream = static_cast<uint32_t>(object.required("stream").integer(0, std::numeric_limits<uint32_t>::max()));
    tensor.offset = object.required("offset").integer(0, kMaxSafeInteger);
    tensor.out = object.required("out").integer(1, kMaxSafeInteger);
    tensor.in = object.required("in").integer(1, kMaxSafeInteger);
    tensor.taps = object.required("taps").integer(1, kMaxSafeInteger);
    object.finish();
    tensors.push_back(tensor);
  }
  return tensors;
}

ProgramRecord readProgram(const Reader& reader) {
  ObjectReader object(reader);
  ProgramRecord program;
  program.locals = readBuffers(object.required("locals"));
  for (const Reader& entry : object.required("ops").list(kMaxOps)) program.ops.push_back(readOp(entry));
  object.finish();
  return program;
}

}  // namespace revnet
