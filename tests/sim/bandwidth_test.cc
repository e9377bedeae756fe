// What the engine makes of four ports of 100 Gbit/s in virtual time: a table, and that pages of 8 KiB and
// single writes of 1 MiB fill them. A write costs its port 60 ns and the engine's thread 100 ns, which is
// what such devices and their drivers are known to take.
#include "support.h"

namespace switchyard::sim {
namespace {

class Bandwidth : public OnCluster {
 protected:
  static constexpr std::uint64_t kRegion = 64 << 20;
  static std::vector<PortOptions> ports(bool ordered) {
    const PortOptions port{.latency = microseconds(3),
                           .jitter = ordered ? Nanos::zero() : microseconds(2),
                           .per_write = Nanos(60),
                           .cpu_per_post = Nanos(150),
                           .cpu_per_write = Nanos(100),
                           .mtu = 64 << 10,
                           .ordered = ordered,
                           .max_outstanding = 1024,
                           .window = 256};
    return {4, port};
  }
  // Gbit/s with so many transfers under way; pages of `bytes` or one run.
  double measure(const Machine& a, const Machine& b, std::uint64_t bytes, bool paged, int depth) {
    const std::uint64_t total = paged ? std::max<std::uint64_t>(bytes, 8 << 20) : bytes;
    const int repeats = static_cast<int>(std::clamp<std::uint64_t>((64 << 20) / total, 8, 64));
    int left = repeats, under_way = 0;
    std::function<void()> submit = [&] {
      if (left == 0) return;
      --left;
      ++under_way;
      auto done = [&](const Status& status) {
        EXPECT_TRUE(status);
        --under_way;
        submit();
      };
      if (!paged) {
        ASSERT_TRUE(engine(a).write(write_of(a, b, 0, total), done));
        return;
      }
      PagedWrite write{.source = a.region,
                       .source_stride = 2 * bytes,
                       .peer = address(b),
                       .target = b.region.key(),
                       .target_stride = bytes,
                       .page_bytes = bytes};
      for (std::uint32_t i = 0; i < total / bytes; ++i) {
        write.source_pages.push_back(i);
        write.target_pages.push_back(i);
      }
      ASSERT_TRUE(engine(a).write_pages(std::move(write), done));
    };
    const TimePoint start = cluster_.now();
    for (int i = 0; i < depth; ++i) submit();
    EXPECT_TRUE(cluster_.run_for(seconds(60), [&] { return left == 0 && under_way == 0; }));
    return static_cast<double>(total) * repeats * 8e-9 / to_seconds(cluster_.now() - start);
  }
};

TEST_F(Bandwidth, FourPortsAreFilled) {
  for (const bool ordered : {true, false}) {
    Machine &a = machine(ports(ordered), kRegion), &b = machine(ports(ordered), kRegion);
    connect(a, b);
    measure(a, b, 8 << 20, false, 4);  // the speeds are measured
    fmt::print("{}: Gbit/s of 400\n{:>10} {:>12} {:>12} {:>12}\n", ordered ? "with order" : "without order",
               "bytes", "one write", "8 writes", "pages");
    for (std::uint64_t bytes = 1 << 10; bytes <= 32 << 20; bytes *= 4) {
      for (const std::uint64_t size : {bytes, bytes * 2}) {
        if (size > 32 << 20) continue;
        const double one = measure(a, b, size, false, 1), many = measure(a, b, size, false, 8);
        const double pages = size <= 1 << 20 ? measure(a, b, size, true, 2) : 0;
        fmt::print("{:>10} {:>12.1f} {:>12.1f} {:>12}\n", size, one, many,
                   pages == 0 ? "" : fmt::format("{:.1f}", pages));
        if (size >= 1 << 20) {
          EXPECT_GT(many, 0.9 * 400) << size;
        }
        if (pages != 0 && size >= 8 << 10) {
          // Of what the ports can do, which work on each write for a while.
          const double line = static_cast<double>(size) / 12.5;
          EXPECT_GT(pages, 0.93 * 400 * line / (line + 60)) << size;
        }
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::sim
