"""Configurations of Micro-Manager's devices that are made for tests, and need no hardware."""

from __future__ import annotations

from pathlib import Path

import mm_test_adapters

ADAPTERS = Path(mm_test_adapters.device_adapter_path())
PRODUCT = Path(__file__).parents[2] / "microscope" / "beads.cfg"
BEADS = tuple(PRODUCT.read_text(encoding="utf-8").splitlines()[3:])  # past "Initialize,0"
STAINED = (  # with a filter wheel, whose presets are channels
    "Device,Wheel,DemoCamera,DWheel",
    *BEADS,
    "Label,Wheel,0,Blue",
    "Label,Wheel,1,Green",
    "ConfigGroup,Channel,DAPI,Wheel,Label,Blue",
    "ConfigGroup,Channel,FITC,Wheel,Label,Green",
    "Property,Core,ChannelGroup,Channel",
)
SEQUENCES = (  # devices that write into each frame the commands they got, and in which order
    "Device,Hub,SequenceTester,THub",
    "Device,Camera,SequenceTester,TCamera-0",
    "Device,XY,SequenceTester,TXYStage-0",
    "Device,Z,SequenceTester,TZStage-0",
    "Property,Camera,ImageMode,MachineReadable",
    "Parent,Camera,Hub",
    "Parent,XY,Hub",
    "Parent,Z,Hub",
    "Property,Core,Initialize,1",
    "Property,Core,Camera,Camera",
    "Property,Core,XYStage,XY",
    "Property,Core,Focus,Z",
    "Property,Z,TriggerSourceDevice,TCamera-0",
    "Property,Z,TriggerSourcePort,ExposureStartEdge",
    "Property,Z,TriggerSequenceMaxLength,24",
    "ConfigPixelSize,Lens,Camera,Binning,1",
    "PixelSize_um,Lens,0.5",
)


def config_of(folder: Path, *lines: str) -> Path:
    """Write a configuration file."""
    path = folder / "microscope.cfg"
    path.write_text("\n".join(("Property,Core,Initialize,0", *lines, "")))
    return path
