// What a buffer is: a flat run of elements of one type, in one memory category.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace revnet {

// Backends choose the machine type: `real` is float (float64 on the reference backend); `fixed` is a residual stream, int32
// with 22 fraction bits (int64 with 40 on the reference backend). `hidden` (the hidden tensors of residual functions) and
// `gradient` (the gradients of streams) are reals that a backend may store in fewer bits: most of a step's bytes are theirs.
enum class ElementType : uint8_t { Real, Fixed, Byte, Index, Hidden, Gradient };

// What memory is reported under. Planned categories (Activations) live in the arena; the others are held from start to end.
enum class Category : uint8_t { Parameters, Gradients, Optimizer, Activations, Data };
constexpr int kCategories = 5;
constexpr int kElementTypes = 6;

constexpr const char* kElementTypeNames[] = {"real", "fixed", "byte", "index", "hidden", "gradient"};
constexpr const char* kCategoryNames[] = {"parameters", "gradients", "optimizer", "activations", "data"};

// A set of element types, for operands that may be either.
using Types = uint8_t;
constexpr Types bit(ElementType type) { return static_cast<Types>(1u << static_cast<unsigned>(type)); }
constexpr Types kReal = bit(ElementType::Real);
constexpr Types kFixed = bit(ElementType::Fixed);
constexpr Types kByte = bit(ElementType::Byte);
constexpr Types kIndex = bit(ElementType::Index);
constexpr Types kHidden = kReal | bit(ElementType::Hidden);
constexpr Types kGradient = kReal | bit(ElementType::Gradient);
// A residual stream: fixed point (exact) or real (the paper's arithmetic).
constexpr Types kStream = kReal | kFixed;

struct BufferSpec {
  std::string name;  // for error messages and lookups in tests; not necessarily unique
  ElementType type = ElementType::Real;
  int64_t elements = 0;
  Category category = Category::Activations;
  // A view shares the elements [offset, offset + elements) of buffer `parent`; -1: the buffer owns its memory.
  int32_t parent = -1;
  int64_t offset = 0;
  // An activation that JavaScript writes before a run, or reads after it, is live during the whole program.
  bool pinned = false;
};

// The index of a buffer in its program's table; negative: the operand is absent.
struct Operand {
  int32_t id = -1;
  explicit operator bool() const { return id >= 0; }
  bool operator==(const Operand& other) const { return id == other.id; }
};

// How an op touches an operand. Write: every element is overwritten, whatever was there before. Update: read and
// written, that is, accumulated into or changed in place.
enum class Access : uint8_t { Read, Write, Update };

}  // namespace revnet
