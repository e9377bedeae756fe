// Lists of whole numbers from Python: pages, offsets, lengths.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <vector>

namespace switchyard::python {

// From an array of whole numbers (buffer protocol, DLPack; copied in one go where it has T's size), or from
// any sequence of ints. `what` names it in errors. Raises Invalid, OutOfRange (a number that T cannot hold,
// more than `limit` of them). T: std::uint32_t, std::uint64_t.
template <class T>
std::vector<T> read_integers(nanobind::handle object, const char* what, std::size_t limit);

}  // namespace switchyard::python
