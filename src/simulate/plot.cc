// Lanes of instances, and attainment over time, as SVG.
#include <algorithm>

#include "simulate/report.h"

namespace switchyard::simulate {
namespace {

constexpr double kLeft = 110;
constexpr double kWidth = 1080;
constexpr double kLane = 18;
constexpr double kCurve = 140;
constexpr double kTop = 50;
constexpr std::size_t kMaxSegments = 60'000;

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '<') {
      result += "&lt;";
    } else if (c == '>') {
      result += "&gt;";
    } else if (c == '&') {
      result += "&amp;";
    } else {
      result += c;
    }
  }
  return result;
}

// Neighbouring models far apart in hue.
int hue(std::uint32_t model) { return static_cast<int>((model * 137u + 20) % 360); }

}  // namespace

std::string to_svg(const SimulationInput& input, const SimulationResult& result) {
  const Cluster& cluster = input.cluster;
  std::uint32_t lanes = cluster.prefill + cluster.decode + cluster.unified;
  for (const LaneSegment& segment : result.lanes) lanes = std::max(lanes, segment.instance + 1);
  const double end = std::max({result.seconds, input.workload.seconds(), 1.0});
  const double scale = kWidth / end;
  const double curve_top = kTop + lanes * kLane + 40;
  const double height = curve_top + kCurve + 40;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0f}\" height=\"{:.0f}\" "
      "font-family=\"sans-serif\" "
      "font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kLeft + kWidth + 30, height);
  svg += fmt::format(
      "<text x=\"{:.0f}\" y=\"22\" font-size=\"15\">{}: {} models, {} requests, {:.1f} % of tokens in "
      "time</text>\n"
      "<text x=\"{:.0f}\" y=\"38\" fill=\"#555\">one colour per model; thin: weights being loaded; pale: "
      "prefill</text>\n",
      kLeft, schedule::to_string(input.policy), input.models.size(), result.total.requests,
      100 * result.attainment(), kLeft);
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    const char* role = lane < cluster.prefill                                      ? "prefill"
                       : lane < cluster.prefill + cluster.decode                   ? "decode"
                       : lane < cluster.prefill + cluster.decode + cluster.unified ? "unified"
                                                                                   : "restarted";
    const double y = kTop + lane * kLane;
    svg += fmt::format(
        "<text x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{} {}</text>"
        "<rect x=\"{:.0f}\" y=\"{:.1f}\" width=\"{:.0f}\" height=\"{:.0f}\" fill=\"#f2f2f2\"/>\n",
        kLeft - 8, y + 12, role, lane, kLeft, y + 1, kWidth, kLane - 3);
  }
  // Neighbours of one model and kind become one bar; the shortest bars go where there are too many.
  std::vector<std::vector<LaneSegment>> rows(lanes * 3);
  for (const LaneSegment& segment : result.lanes) {
    auto& row = rows[segment.instance * 3 + static_cast<std::size_t>(segment.kind)];
    if (!row.empty() && row.back().model == segment.model && segment.begin - row.back().end < 0.5 / scale) {
      row.back().end = segment.end;
    } else {
      row.push_back(segment);
    }
  }
  std::vector<LaneSegment> bars;
  for (const auto& row : rows) bars.insert(bars.end(), row.begin(), row.end());
  if (bars.size() > kMaxSegments) {
    std::nth_element(bars.begin(), bars.begin() + kMaxSegments, bars.end(),
                     [](const auto& a, const auto& b) { return a.end - a.begin > b.end - b.begin; });
    bars.resize(kMaxSegments);
  }
  for (const LaneSegment& bar : bars) {
    const double y = kTop + bar.instance * kLane;
    const bool load = bar.kind == LaneKind::load;
    svg += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.0f}\" "
        "fill=\"hsl({},70%,{}%)\"><title>{} {:.2f}-{:.2f} "
        "s</title></rect>\n",
        kLeft + bar.begin * scale, load ? y + kLane - 5 : y + 1, std::max(0.3, (bar.end - bar.begin) * scale),
        load ? 3.0 : kLane - 6, hue(bar.model), bar.kind == LaneKind::prefill ? 78 : 50,
        escaped(input.models[bar.model].spec.name), bar.begin, bar.end);
  }
  svg += fmt::format(
      "<text x=\"{:.0f}\" y=\"{:.1f}\">tokens in time, by the 10 s in which they were due</text>\n", kLeft,
      curve_top - 8);
  svg += fmt::format(
      "<rect x=\"{:.0f}\" y=\"{:.1f}\" width=\"{:.0f}\" height=\"{:.0f}\" fill=\"none\" stroke=\"#999\"/>\n",
      kLeft, curve_top, kWidth, kCurve);
  for (const double share : {0.5, 0.9, 1.0}) {
    const double y = curve_top + kCurve * (1 - share);
    svg += fmt::format(
        "<line x1=\"{:.0f}\" x2=\"{:.0f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/><text x=\"{:.0f}\" "
        "y=\"{:.1f}\" "
        "text-anchor=\"end\">{:.0f} %</text>\n",
        kLeft, kLeft + kWidth, y, y, kLeft - 8, y + 4, share * 100);
  }
  std::string points;
  for (std::size_t i = 0; i < result.attainment_by_10s.size(); ++i) {
    const double x = std::min(end, (static_cast<double>(i) + 0.5) * 10);
    points += fmt::format("{:.1f},{:.1f} ", kLeft + x * scale,
                          curve_top + kCurve * (1 - result.attainment_by_10s[i]));
  }
  svg +=
      fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"#1664c0\" stroke-width=\"2\"/>\n", points);
  for (int tick = 0; tick <= 5; ++tick) {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:.0f} s</text>\n",
                       kLeft + kWidth * tick / 5, curve_top + kCurve + 16, end * tick / 5);
  }
  return svg + "</svg>\n";
}

}  // namespace switchyard::simulate
