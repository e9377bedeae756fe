#include "pages.h"

#include <cstring>
#include <limits>

#include "errors.h"
#include "exported.h"
#include "switchyard/transfer.h"

namespace switchyard::python {
namespace {

void check_count(std::size_t count, const char* what) {
  if (count > PagedWrite::kMaxPages) {
    raise(ErrorCode::out_of_range, "{}: {} pages are more than {}", what, count, PagedWrite::kMaxPages);
  }
}

template <class T>
void copy(const Exported::Integers& from, std::vector<std::uint32_t>& to, const char* what) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    T value;
    std::memcpy(&value, from.data + static_cast<std::ptrdiff_t>(i) * from.stride, sizeof value);
    if (!std::in_range<std::uint32_t>(value)) {
      raise(ErrorCode::out_of_range, "{}[{}]: {} is no page's number", what, i, value);
    }
    to[i] = static_cast<std::uint32_t>(value);
  }
}

std::vector<std::uint32_t> read_array(const Exported& array, const char* what) {
  const Exported::Integers from = array.integers(what);
  check_count(static_cast<std::size_t>(from.count), what);
  std::vector<std::uint32_t> pages(static_cast<std::size_t>(from.count));
  if (from.size == 4 && !from.is_signed && from.stride == 4) {
    if (!pages.empty()) std::memcpy(pages.data(), from.data, 4 * pages.size());
    return pages;
  }
  switch (from.size * (from.is_signed ? -1 : 1)) {
    case 2:
      copy<std::uint16_t>(from, pages, what);
      break;
    case -2:
      copy<std::int16_t>(from, pages, what);
      break;
    case 4:
      copy<std::uint32_t>(from, pages, what);
      break;
    case -4:
      copy<std::int32_t>(from, pages, what);
      break;
    case 8:
      copy<std::uint64_t>(from, pages, what);
      break;
    case -8:
      copy<std::int64_t>(from, pages, what);
      break;
    default:
      raise(ErrorCode::invalid, "{}: numbers of {} bytes", what, from.size);
  }
  return pages;
}

}  // namespace

std::vector<std::uint32_t> read_pages(nb::handle object, const char* what) {
  if (PyObject_CheckBuffer(object.ptr()) != 0 || nb::hasattr(object, "__dlpack__")) {
    return read_array(Exported(object, what), what);
  }
  nb::object list = nb::steal(PySequence_Fast(object.ptr(), "pages are to be a sequence or an array"));
  if (!list.is_valid()) throw nb::python_error();
  const auto count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(list.ptr()));
  check_count(count, what);
  std::vector<std::uint32_t> pages(count);
  for (std::size_t i = 0; i < count; ++i) {
    // __index__ of an element is foreign code, which may shorten the list.
    if (static_cast<std::size_t>(PySequence_Fast_GET_SIZE(list.ptr())) != count) {
      raise(ErrorCode::invalid, "{}: it changed while it was read", what);
    }
    nb::object item = nb::borrow(PySequence_Fast_GET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i)));
    nb::object number = nb::steal(PyNumber_Index(item.ptr()));
    if (!number.is_valid()) throw nb::python_error();
    int overflow = 0;
    const long value = PyLong_AsLongAndOverflow(number.ptr(), &overflow);
    if (overflow != 0 || value < 0 || value > long{std::numeric_limits<std::uint32_t>::max()}) {
      raise(ErrorCode::out_of_range, "{}[{}] is no page's number", what, i);
    }
    pages[i] = static_cast<std::uint32_t>(value);
  }
  return pages;
}

}  // namespace switchyard::python
