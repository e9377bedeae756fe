#include "submission.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <utility>
#include <vector>

#include "engine_docs.h"
#include "errors.h"
#include "integers.h"

namespace switchyard::python {

using namespace nb::literals;

namespace {

SubmitOptions submit_options(std::optional<CounterId> counter, std::optional<double> timeout,
                             Priority priority) {
  return {.counter = counter, .deadline = deadline_after(timeout, "timeout"), .priority = priority};
}

TransferOperation write(PyEngine& self, const PyRegion& source, const PeerAddress& peer,
                        const RegionKey& target, std::uint64_t source_offset, std::uint64_t target_offset,
                        std::optional<std::uint64_t> nbytes, std::optional<CounterId> counter,
                        std::optional<double> timeout, Priority priority) {
  const std::uint64_t rest =
      source_offset <= source.key().bytes ? source.key().bytes - source_offset : std::uint64_t{0};
  return self.write({.source_offset = source_offset,
                     .peer = peer,
                     .target = target,
                     .target_offset = target_offset,
                     .bytes = nbytes.value_or(rest),
                     .options = submit_options(counter, timeout, priority)},
                    source);
}

TransferOperation write_pages(PyEngine& self, const PyRegion& source, nb::handle source_pages,
                              const PeerAddress& peer, const RegionKey& target, nb::handle target_pages,
                              std::uint64_t page_bytes, std::uint64_t source_offset,
                              std::optional<std::uint64_t> source_stride, std::uint64_t target_offset,
                              std::optional<std::uint64_t> target_stride, std::optional<CounterId> counter,
                              std::optional<double> timeout, Priority priority) {
  const auto pages = [](nb::handle list, const char* what) {
    return read_integers<std::uint32_t>(list, what, PagedWrite::kMaxPages);
  };
  return self.write_pages({.source_offset = source_offset,
                           .source_stride = source_stride.value_or(page_bytes),
                           .source_pages = pages(source_pages, "source_pages"),
                           .peer = peer,
                           .target = target,
                           .target_offset = target_offset,
                           .target_stride = target_stride.value_or(page_bytes),
                           .target_pages = pages(target_pages, "target_pages"),
                           .page_bytes = page_bytes,
                           .options = submit_options(counter, timeout, priority)},
                          source);
}

// One number for each member, from a list of them or from one for all.
std::vector<std::uint64_t> for_each_member(nb::handle value, const char* what, std::size_t members) {
  std::vector<std::uint64_t> numbers;
  if (PyIndex_Check(value.ptr()) != 0 && PyObject_HasAttrString(value.ptr(), "__len__") == 0) {
    numbers.assign(members, read_integers<std::uint64_t>(nb::make_tuple(value), what, 1)[0]);
  } else {
    numbers = read_integers<std::uint64_t>(value, what, PeerGroup::kMaxMembers);
  }
  if (numbers.size() != members) {
    raise(ErrorCode::invalid, "scatter: {} has {} numbers for a group of {}", what, numbers.size(), members);
  }
  return numbers;
}

TransferOperation scatter(PyEngine& self, const PyRegion& source, const PeerGroup& group, nb::handle nbytes,
                          nb::handle source_offsets, nb::handle target_offsets,
                          const std::optional<std::vector<std::optional<CounterId>>>& counters,
                          std::optional<double> timeout, Priority priority) {
  const std::size_t members = group.members().size();
  const auto lengths = for_each_member(nbytes, "nbytes", members);
  const auto from = for_each_member(source_offsets, "source_offsets", members);
  const auto to = for_each_member(target_offsets, "target_offsets", members);
  if (counters && counters->size() != members) {
    raise(ErrorCode::invalid, "scatter: {} counters for a group of {}", counters->size(), members);
  }
  Scatter operands{.group = group, .deadline = deadline_after(timeout, "timeout"), .priority = priority};
  for (std::size_t i = 0; i < members; ++i) {
    operands.slices.push_back({.source_offset = from[i],
                               .target_offset = to[i],
                               .bytes = lengths[i],
                               .counter = counters ? (*counters)[i] : std::nullopt});
  }
  return self.scatter(std::move(operands), source);
}

PeerGroup make_group(std::vector<std::pair<PeerAddress, RegionKey>> pairs) {
  if (pairs.size() > PeerGroup::kMaxMembers) {
    raise(ErrorCode::out_of_range, "a group of {} peers is larger than {}", pairs.size(),
          PeerGroup::kMaxMembers);
  }
  std::vector<PeerGroup::Member> members;
  for (auto& [peer, target] : pairs) members.push_back({std::move(peer), std::move(target)});
  return PeerGroup(std::move(members));
}

}  // namespace

void bind_submission(nb::module_& module) {
  nb::enum_<Priority>(module, "Priority", "Which transfers go first.")
      .value("BULK", Priority::bulk, "Throughput.")
      .value("LATENCY", Priority::latency, "Overtakes BULK wherever they queue in this engine.");
  nb::class_<PeerGroup>(
      module, "PeerGroup",
      "Peers that are written to together, each with the region that is meant. Made once, used "
      "often.")
      .def(
          "__init__",
          [](PeerGroup* self, std::vector<std::pair<PeerAddress, RegionKey>> members) {
            new (self) PeerGroup(make_group(std::move(members)));
          },
          "members"_a)
      .def("__len__", [](const PeerGroup& self) { return self.members().size(); });
}

void bind_submitting(nb::class_<PyEngine>& engine) {
  engine
      .def("write", &write, "source"_a, "peer"_a, "target"_a, nb::kw_only(), "source_offset"_a = 0,
           "target_offset"_a = 0, "nbytes"_a = nb::none(), "counter"_a = nb::none(), "timeout"_a = nb::none(),
           "priority"_a = Priority::bulk, docs::kWrite)
      .def("write_pages", &write_pages, "source"_a, "source_pages"_a, "peer"_a, "target"_a, "target_pages"_a,
           nb::kw_only(), "page_bytes"_a, "source_offset"_a = 0, "source_stride"_a = nb::none(),
           "target_offset"_a = 0, "target_stride"_a = nb::none(), "counter"_a = nb::none(),
           "timeout"_a = nb::none(), "priority"_a = Priority::bulk, docs::kWritePages)
      .def("scatter", &scatter, "source"_a, "group"_a, nb::kw_only(), "nbytes"_a, "source_offsets"_a = 0,
           "target_offsets"_a = 0, "counters"_a = nb::none(), "timeout"_a = nb::none(),
           "priority"_a = Priority::bulk, docs::kScatter)
      .def(
          "signal",
          [](PyEngine& self, const PeerAddress& peer, const CounterId& counter, std::optional<double> timeout,
             Priority priority) {
            return self.signal({.peer = peer,
                                .counter = counter,
                                .deadline = deadline_after(timeout, "timeout"),
                                .priority = priority});
          },
          "peer"_a, "counter"_a, nb::kw_only(), "timeout"_a = nb::none(), "priority"_a = Priority::latency,
          docs::kSignal);
}

}  // namespace switchyard::python
